using System.CommandLine;

namespace Trimtab.Server.Commands;

/// <summary>completion: scripts that let a shell complete trimtab's commands, options and files.</summary>
internal static class CompletionCommand
{
    private const string Bash = """
        _trimtab() {
            local words
            mapfile -t words < <(trimtab "[suggest:${COMP_POINT}]" "${COMP_LINE}" 2>/dev/null)
            mapfile -t COMPREPLY < <(compgen -W "${words[*]}" -- "${COMP_WORDS[COMP_CWORD]}")
        }
        complete -o default -F _trimtab trimtab
        """;

    private const string Zsh = """
        #compdef trimtab
        _trimtab() {
            local -a words
            words=("${(@f)$(trimtab "[suggest:${CURSOR}]" "${BUFFER}" 2>/dev/null)}")
            compadd -a words
            _files
        }
        compdef _trimtab trimtab
        """;

    private const string Fish = """
        complete -c trimtab -a '(trimtab "[suggest:"(commandline -C)"]" (commandline) 2>/dev/null)'
        """;

    private const string PowerShell = """
        Register-ArgumentCompleter -Native -CommandName trimtab -ScriptBlock {
            param($word, $ast, $position)
            trimtab "[suggest:$position]" "$ast" 2>$null | ForEach-Object {
                [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_)
            }
        }
        """;

    public static Command Create(Terminal terminal)
    {
        var shell = new Argument<string>("shell") { Description = "bash, zsh, fish or pwsh." };
        shell.AcceptOnlyFromAmong("bash", "zsh", "fish", "pwsh");
        var command = new Command("completion", "Prints a completion script for a shell.") { shell };
        command.SetAction(parse => terminal.Output.WriteLine(parse.GetRequiredValue(shell) switch
        {
            "bash" => Bash,
            "zsh" => Zsh,
            "fish" => Fish,
            _ => PowerShell,
        }));
        return command;
    }
}

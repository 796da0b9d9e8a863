using System.Text;

namespace Trimtab.Text;

/// <summary>What a pre-tokenizer or a replacement looks for in a text.</summary>
internal abstract class TextPattern
{
    /// <summary>Appends the matches (start, end), from left to right, which do not overlap. The text holds no lone surrogate.</summary>
    public abstract void FindAll(ReadOnlySpan<char> text, List<(int Start, int End)> matches);
}

/// <summary>A text as it stands.</summary>
internal sealed class LiteralPattern(string literal) : TextPattern
{
    public string Literal => literal;

    public override void FindAll(ReadOnlySpan<char> text, List<(int Start, int End)> matches)
    {
        for (int start = 0, skip; (skip = text[start..].IndexOf(literal)) >= 0; start += skip + literal.Length)
            matches.Add((start + skip, start + skip + literal.Length));
    }
}

/// <summary>Each character of a set, one by one.</summary>
internal sealed class RunePattern(RuneSet set) : TextPattern
{
    public override void FindAll(ReadOnlySpan<char> text, List<(int Start, int End)> matches)
    {
        for (int start = 0, length; start < text.Length; start += length)
        {
            Rune.DecodeFromUtf16(text[start..], out var rune, out length);
            if (set.Contains(rune.Value))
                matches.Add((start, start + length));
        }
    }
}

/// <summary>
/// A regular expression over code points, matched by backtracking with Oniguruma's rules (leftmost; alternatives in order). .NET's own
/// engine works on UTF-16 units, so that its \p{L} knows no letter beyond U+FFFF, and folds case otherwise.
/// A repeated character class is one instruction which remembers, for the text at hand, how far its last run went and from which ends of it
/// the rest is known to fail: without back references that depends on the position alone. So a long run that ends in failure is walked once,
/// not once from each of its characters.
/// </summary>
internal sealed class RegexPattern : TextPattern
{
    private const int MostInstructions = 20_000;
    private readonly List<Instruction> _program = [];

    /// <exception cref="FormatException">The pattern is malformed, or uses what is not supported.</exception>
    public RegexPattern(string pattern)
    {
        Compile(RegexSyntax.Parse(pattern));
        Emit(new Instruction(Operation.Accept));
    }

    private enum Operation : byte
    {
        /// <summary>One character of Set.</summary>
        One,

        /// <summary>X to Y characters of Set, as many as there are, then fewer.</summary>
        Run,

        /// <summary>Go on at X; if that fails, at Y.</summary>
        Split,

        /// <summary>Go on at X.</summary>
        Jump,

        /// <summary>The character here is (Y = 0) or is not (Y = 1) of Set.</summary>
        Peek,

        /// <summary>The program that follows, up to X, matches (Y = 0) or not (Y = 1) here, or Back characters before.</summary>
        Look,

        /// <summary>The program that follows, up to X, matches, once and for all.</summary>
        Atomic,

        Anchor,
        Accept,
    }

    private readonly record struct Instruction(Operation Operation, int X = 0, int Y = 0, RuneSet? Set = null, int Back = 0);

    public override void FindAll(ReadOnlySpan<char> text, List<(int Start, int End)> matches)
    {
        var run = new Matcher(_program, text);
        for (int start = 0, lastEnd = -1; start <= text.Length;)
        {
            var end = run.Match(0, start);
            var empty = end == start;
            if (end >= 0 && !(empty && start == lastEnd))
                matches.Add((start, lastEnd = end));
            start = end > start ? end : Step(text, start);
        }
    }

    private static int Step(ReadOnlySpan<char> text, int position) =>
        position + (position + 1 < text.Length && char.IsHighSurrogate(text[position]) ? 2 : 1);

    private int Emit(Instruction instruction)
    {
        if (_program.Count >= MostInstructions)
            throw new FormatException("the regular expression is too large once its counted repetitions are written out");
        _program.Add(instruction);
        return _program.Count - 1;
    }

    private void Compile(RegexNode node)
    {
        switch (node)
        {
            case RegexNode.One one:
                Emit(new Instruction(Operation.One, Set: one.Set));
                break;
            case RegexNode.Anchor anchor:
                Emit(new Instruction(Operation.Anchor, (int)anchor.Kind));
                break;
            case RegexNode.Series series:
                foreach (var part in series.Parts)
                    Compile(part);
                break;
            case RegexNode.Choice choice:
                CompileChoice(choice);
                break;
            case RegexNode.Repeat { Lazy: false, Body: RegexNode.One body } repeat:
                Emit(new Instruction(Operation.Run, repeat.Least, repeat.Most, body.Set));
                break;
            case RegexNode.Repeat repeat:
                CompileRepeat(repeat);
                break;
            case RegexNode.Look { Behind: false, Body: RegexNode.Series { Parts: [RegexNode.One single] } } look:
                Emit(new Instruction(Operation.Peek, Y: look.Negated ? 1 : 0, Set: single.Set));
                break;
            case RegexNode.Look look:
                CompileInner(look.Body, new Instruction(Operation.Look, Y: look.Negated ? 1 : 0, Back: look.Behind ? look.Body.Width : 0));
                break;
            case RegexNode.Atomic atomic:
                CompileInner(atomic.Body, new Instruction(Operation.Atomic));
                break;
        }
    }

    private void CompileInner(RegexNode body, Instruction instruction)
    {
        var head = Emit(instruction);
        Compile(body);
        Emit(new Instruction(Operation.Accept));
        _program[head] = instruction with { X = _program.Count };
    }

    private void CompileChoice(RegexNode.Choice choice)
    {
        var exits = new List<int>();
        for (var i = 0; i < choice.Branches.Count - 1; i++)
        {
            var split = Emit(new Instruction(Operation.Split));
            Compile(choice.Branches[i]);
            exits.Add(Emit(new Instruction(Operation.Jump)));
            _program[split] = new Instruction(Operation.Split, split + 1, _program.Count);
        }
        Compile(choice.Branches[^1]);
        foreach (var exit in exits)
            _program[exit] = new Instruction(Operation.Jump, _program.Count);
    }

    private void CompileRepeat(RegexNode.Repeat repeat)
    {
        for (var i = 0; i < repeat.Least; i++)
            Compile(repeat.Body);
        var endless = repeat.Most == int.MaxValue;
        var splits = new List<int>();
        for (var i = endless ? repeat.Most - 1 : repeat.Least; i < repeat.Most; i++)
        {
            splits.Add(Emit(new Instruction(Operation.Split)));
            Compile(repeat.Body);
        }
        if (endless)
            Emit(new Instruction(Operation.Jump, splits[0]));
        foreach (var split in splits)
            _program[split] = repeat.Lazy
                ? new Instruction(Operation.Split, _program.Count, split + 1)
                : new Instruction(Operation.Split, split + 1, _program.Count);
    }

    /// <summary>The state of matching one text.</summary>
    private ref struct Matcher(List<Instruction> program, ReadOnlySpan<char> text)
    {
        private readonly ReadOnlySpan<char> _text = text;

        // By instruction: the last run [From, To) of a Run without end, and the ends [Low, High] from which the rest failed.
        private readonly (int From, int To, int Low, int High)[] _known = NothingKnown(program.Count);
        private (int Instruction, int Position, int Low, int High)[] _stack = new (int, int, int, int)[32];
        private int _height;
        private long _stepsLeft = 10_000_000 + 100L * text.Length;

        /// <summary>Runs the program from an instruction at a position to its Accept; returns where that is reached, or −1.</summary>
        public int Match(int instruction, int position)
        {
            var floor = _height;
            while (true)
            {
                var fails = false;
                var step = program[instruction];
                switch (step.Operation)
                {
                    case Operation.Accept:
                        _height = floor;
                        return position;
                    case Operation.One when position < _text.Length && step.Set!.Contains(RuneAt(position, out var length)):
                        position += length;
                        instruction++;
                        break;
                    case Operation.Run:
                        fails = !Run(step, instruction, ref position);
                        instruction++;
                        break;
                    case Operation.Split:
                        Push((step.Y, position, -1, -1));
                        instruction = step.X;
                        break;
                    case Operation.Jump:
                        instruction = step.X;
                        break;
                    case Operation.Peek when (position < _text.Length && step.Set!.Contains(RuneAt(position, out _))) == (step.Y == 0):
                        instruction++;
                        break;
                    case Operation.Look when Looks(step, instruction, position):
                        instruction = step.X;
                        break;
                    case Operation.Atomic when Match(instruction + 1, position) is var end and >= 0:
                        position = end;
                        instruction = step.X;
                        break;
                    case Operation.Anchor when IsAt((AnchorKind)step.X, position):
                        instruction++;
                        break;
                    default:
                        fails = true;
                        break;
                }
                if (fails && !Resume(floor, ref instruction, ref position))
                    return -1;
            }
        }

        private static (int, int, int, int)[] NothingKnown(int count)
        {
            var known = new (int, int, int, int)[count];
            Array.Fill(known, (-1, -1, -1, -1));
            return known;
        }

        private readonly int RuneAt(int position, out int length)
        {
            var first = _text[position];
            length = position + 1 < _text.Length && char.IsSurrogatePair(first, _text[position + 1]) ? 2 : 1;
            return length == 2 ? char.ConvertToUtf32(first, _text[position + 1]) : first;
        }

        private readonly int Back(int position) => position - (position > 1 && char.IsLowSurrogate(_text[position - 1]) ? 2 : 1);

        private bool Looks(Instruction step, int instruction, int position)
        {
            for (var back = step.Back; back > 0; back--)
            {
                if (position == 0)
                    return step.Y == 1;
                position = Back(position);
            }
            return Match(instruction + 1, position) >= 0 == (step.Y == 0);
        }

        private bool Run(Instruction step, int instruction, ref int position)
        {
            ref var known = ref _known[instruction];
            var least = position;
            var end = position;
            var count = 0;
            if (step.Y == int.MaxValue && known.From <= position && position < known.To)
            {
                for (; count < step.X && least < known.To; count++)
                    least = Step(_text, least);
                end = known.To;
            }
            else
            {
                while (count < step.Y && end < _text.Length && step.Set!.Contains(RuneAt(end, out var length)))
                {
                    end += length;
                    if (++count <= step.X)
                        least = end;
                }
                if (step.Y == int.MaxValue)
                    (known.From, known.To) = (position, end);
            }
            if (count < step.X || (known.Low >= 0 && known.Low <= least && end <= known.High))
                return false;
            if (end > least)
                Push((instruction, end, least, end));
            position = end;
            return true;
        }

        /// <summary>Takes up the latest alternative above the floor, if there is one.</summary>
        private bool Resume(int floor, ref int instruction, ref int position)
        {
            if (--_stepsLeft < 0)
                throw new InvalidDataException("a regular expression of the tokenizer needs too many steps on this text");
            while (_height > floor)
            {
                ref var top = ref _stack[_height - 1];
                if (top.Low < 0)
                {
                    (instruction, position) = (top.Instruction, top.Position);
                    _height--;
                    return true;
                }
                if (top.Position > top.Low)
                {
                    position = top.Position = Back(top.Position);
                    instruction = top.Instruction + 1;
                    return true;
                }
                // Every end of this run has failed; a neighbouring stretch known to fail grows by it.
                ref var known = ref _known[top.Instruction];
                (known.Low, known.High) = known.Low >= 0 && known.Low <= top.High && top.Low <= known.High
                    ? (Math.Min(known.Low, top.Low), Math.Max(known.High, top.High))
                    : (top.Low, top.High);
                _height--;
            }
            return false;
        }

        private readonly bool IsAt(AnchorKind kind, int position) => kind switch
        {
            AnchorKind.LineStart => position == 0 || (position < _text.Length && _text[position - 1] == '\n'),
            AnchorKind.LineEnd => position == _text.Length || _text[position] == '\n',
            AnchorKind.TextStart => position == 0,
            AnchorKind.TextEnd => position == _text.Length,
            AnchorKind.TextEndOrLastNewline =>
                position == _text.Length || (position == _text.Length - 1 && _text[position] == '\n'),
            _ => (kind == AnchorKind.WordBoundary) == (IsWord(position - 1 < 0 ? -1 : Back(position)) != IsWord(position)),
        };

        private readonly bool IsWord(int position) =>
            position >= 0 && position < _text.Length && RuneSet.Word.Contains(RuneAt(position, out _));

        private void Push((int, int, int, int) entry)
        {
            if (_height == _stack.Length)
                Array.Resize(ref _stack, 2 * _stack.Length);
            _stack[_height++] = entry;
        }
    }
}

#!/usr/bin/env pwsh
# A thin door: each task is one dotnet command.
param(
    [ValidateSet('build', 'test', 'bench', 'publish', 'pack')]
    [string] $Task = 'build',
    [Parameter(ValueFromRemainingArguments)]
    [string[]] $Rest = @()
)
Set-Location $PSScriptRoot
switch ($Task) {
    'build'   { dotnet build -c Release Native.sln @Rest }
    'test'    { dotnet test -c Release Native.sln @Rest }
    'bench'   { dotnet run -c Release --project Runtime.Bench -- @Rest }
    'publish' { dotnet publish -c Release Runtime.Server --output artifacts/publish @Rest }
    'pack'    { dotnet pack -c Release Native.sln --output artifacts/packages @Rest }
}
exit $LASTEXITCODE

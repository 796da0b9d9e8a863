namespace Trimtab.Tests;

public class SharedTests
{
    [Test]
    public void Fixtures_hold_what_their_readme_says() => Assert.That(File.Exists(Shared.Path("fixtures", "README.md")));
}

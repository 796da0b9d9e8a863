namespace Trimtab.Tests;

/// <summary>The folder of golden fixtures, which a user's clone does not have.</summary>
internal static class Shared
{
    private static readonly string? Root = Find();

    /// <summary>A path under the fixtures' folder; skips the running test where there is none.</summary>
    public static string Path(params string[] parts)
    {
        if (Root is null)
            Assert.Ignore("the golden fixtures (a folder 'shared' beside the clone) are not here; this test needs them");
        return System.IO.Path.Combine([Root!, .. parts]);
    }

    /// <summary>Whether the fixtures are here.</summary>
    public static bool Exists => Root is not null;

    private static string? Find()
    {
        for (var folder = new DirectoryInfo(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            var candidate = System.IO.Path.Combine(folder.FullName, "shared", "fixtures");
            if (Directory.Exists(candidate))
                return System.IO.Path.Combine(folder.FullName, "shared");
        }
        return null;
    }
}

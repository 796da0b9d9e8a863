using Trimtab.Checkpoints;

namespace Trimtab.Server.Serving;

/// <summary>Routes that change a running server. A change is whole or not at all; requests in flight end with what they began with.</summary>
internal static class AdminRoutes
{
    /// <summary>POST /admin/vectors/reload: reads every vector file again.</summary>
    public static Task ReloadAsync(Exchange exchange) => ChangeAsync(exchange, "vectors_reloaded", null, () => new("reloaded", Count: exchange.Model.Reload()));

    /// <summary>PUT /admin/vectors/NAME with a vector file as the body.</summary>
    public static async Task PutAsync(Exchange exchange)
    {
        var name = Name(exchange);
        var bytes = await exchange.ReadBytesAsync().ConfigureAwait(false);
        var file = Path.Combine(Path.GetTempPath(), $"trimtab-{Guid.NewGuid():N}.vectors");
        try
        {
            await File.WriteAllBytesAsync(file, bytes, exchange.Cancel).ConfigureAwait(false);
            await ChangeAsync(exchange, "vectors_put", name, () =>
            {
                var set = exchange.Model.Vectors.Read(name, file, reloadable: false);
                exchange.Model.Change(set);
                return new("put", name, set.Vectors.Hash);
            }).ConfigureAwait(false);
        }
        finally
        {
            File.Delete(file);
        }
    }

    /// <summary>DELETE /admin/vectors/NAME.</summary>
    public static Task DeleteAsync(Exchange exchange)
    {
        var name = Name(exchange);
        return ChangeAsync(exchange, "vectors_removed", name, () => exchange.Model.Remove(name)
            ? new("removed", name) : throw new ApiException(404, $"there are no vectors '{name}'", null, "vectors_not_found"));
    }

    /// <summary>PUT /admin/policy with a policy as the body.</summary>
    public static async Task PolicyAsync(Exchange exchange)
    {
        var bytes = await exchange.ReadBytesAsync().ConfigureAwait(false);
        await ChangeAsync(exchange, "policy_changed", null, () =>
        {
            var policy = PolicyFile.Parse(bytes.ToArray(), "policy", exchange.Model.Layers);
            exchange.Model.Change(policy);
            return new("policy_changed", policy.Version, policy.Hash);
        }).ConfigureAwait(false);
    }

    private static string Name(Exchange exchange)
    {
        var name = (string)exchange.Context.Request.RouteValues["name"]!;
        try
        {
            VectorCatalog.CheckName(name);
            return name;
        }
        catch (ArgumentException error)
        {
            throw new ApiException(400, error.Message, "name");
        }
    }

    private static Task ChangeAsync(Exchange exchange, string what, string? name, Func<AdminDone> change)
    {
        AdminDone done;
        try
        {
            done = change();
        }
        catch (Exception error) when (error is InvalidCheckpointException or InvalidDataException or ArgumentException or FileNotFoundException or IOException)
        {
            exchange.Model.RecordChange(what + "_failed", exchange.Caller, name, null);
            throw new ApiException(422, $"nothing has changed: {ApiException.Pathless(error.Message)}", null, "not_usable");
        }
        exchange.Model.RecordChange(what, exchange.Caller, done.Name, done.Hash);
        return exchange.SendAsync(done, Wire.Readable.AdminDone);
    }
}

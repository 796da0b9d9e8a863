using System.CommandLine;
using Trimtab.Server.Serving;
using YamlDotNet.RepresentationModel;

namespace Trimtab.Tests.Serving;

/// <summary>The files under deploy/: their commands are commands, their selectors select, and their times add up.</summary>
public class DeployTests
{
    private static string Folder => Path.Combine(ReadmeTests.Root, "deploy");

    private static List<YamlNode> Read(string file)
    {
        using var reader = new StreamReader(Path.Combine(Folder, "kubernetes", file));
        var yaml = new YamlStream();
        yaml.Load(reader);
        return [.. yaml.Documents.Select(document => document.RootNode)];
    }

    private static List<YamlNode> Resources() => [.. Read("replicas.yaml"), .. Read("router.yaml")];

    private static string Text(YamlNode node, params string[] path)
    {
        foreach (var name in path)
            node = node[name];
        return ((YamlScalarNode)node).Value!;
    }

    private static Dictionary<string, string> Labels(YamlNode node) => ((YamlMappingNode)node).ToDictionary(label => Text(label.Key), label => Text(label.Value));

    /// <summary>Refuses a command that the program would refuse, and returns its drain's time in seconds.</summary>
    private static int DrainTime(IReadOnlyList<string> arguments)
    {
        var parsed = Trimtab.Server.CommandLine.Build(new(TextWriter.Null, TextWriter.Null, TextReader.Null)).Parse(arguments);
        Assert.That(parsed.Errors.Select(error => error.Message), Is.Empty, string.Join(' ', arguments));
        return parsed.GetValue<int>("--drain-time");
    }

    [Test]
    public void Kubernetes_manifests_hold_together()
    {
        var resources = Resources();
        var deployments = resources.Where(resource => Text(resource, "kind") == "Deployment").ToList();
        Assert.That(deployments, Has.Count.EqualTo(2));
        foreach (var deployment in deployments)
        {
            var name = Text(deployment, "metadata", "name");
            var pod = deployment["spec"]["template"]["spec"];
            var container = pod["containers"][0];
            Assert.Multiple(() =>
            {
                Assert.That(Labels(deployment["spec"]["template"]["metadata"]["labels"]), Is.EqualTo(Labels(deployment["spec"]["selector"]["matchLabels"])), name);
                var drain = DrainTime([.. ((YamlSequenceNode)container["args"]).Select(node => Text(node))]);
                var wait = int.Parse(Text(container, "lifecycle", "preStop", "sleep", "seconds"));
                Assert.That(int.Parse(Text(pod, "terminationGracePeriodSeconds")), Is.GreaterThan(wait + drain), name);
                Assert.That((Text(container["ports"][0], "name"), Text(container["ports"][0], "containerPort")), Is.EqualTo(("http", "8080")));
                foreach (var (probe, path) in new[] { ("startupProbe", "/health"), ("readinessProbe", "/ready"), ("livenessProbe", "/health") })
                    Assert.That((Text(container, probe, "httpGet", "path"), Text(container, probe, "httpGet", "port")), Is.EqualTo((path, "http")), name);
                var volumes = ((YamlSequenceNode)pod["volumes"]).Select(volume => Text(volume, "name"));
                Assert.That(((YamlSequenceNode)container["volumeMounts"]).Select(mount => Text(mount, "name")), Is.SubsetOf(volumes), name);
            });
        }
        var pods = deployments.Select(deployment => Labels(deployment["spec"]["selector"]["matchLabels"])).ToList();
        foreach (var service in resources.Where(resource => Text(resource, "kind") == "Service"))
            Assert.That(pods, Has.Some.EqualTo(Labels(service["spec"]["selector"])));
        foreach (var budget in resources.Where(resource => Text(resource, "kind") == "PodDisruptionBudget"))
            Assert.That(pods, Has.Some.EqualTo(Labels(budget["spec"]["selector"]["matchLabels"])));
        // What the router looks up is the headless service.
        var headless = resources.Single(resource => Text(resource, "kind") == "Service" && ((YamlMappingNode)resource["spec"]).Children.ContainsKey("clusterIP"));
        Assert.That(File.ReadAllText(Path.Combine(Folder, "kubernetes", "router.yaml")), Does.Contain($"--discover=http://{Text(headless, "metadata", "name")}:8080"));
        Assert.That(((YamlSequenceNode)Read("kustomization.yaml")[0]["resources"]).Select(node => Text(node)), Is.EquivalentTo(new[] { "replicas.yaml", "router.yaml" }));
        Assert.That(PolicyFile.Open(Path.Combine(Folder, "kubernetes", "policy.json"), 32).Images.Required, Is.True);
    }

    [TestCase("replicas.yaml", 3)]
    [TestCase("router.yaml", 3)]
    public void Manifests_are_what_kubernetes_own_types_hold(string file, int count)
    {
        // Strict: a field that is not theirs, or a value of another kind, is an error.
        var text = File.ReadAllText(Path.Combine(Folder, "kubernetes", file));
        Assert.That(k8s.KubernetesYaml.LoadAllFromString(text, strict: true), Has.Count.EqualTo(count));
        foreach (var (right, wrong) in new[] { ("readinessProbe:", "readynessProbe:"), ("containerPort: 8080", "containerPort: http") })
            Assert.That(() => k8s.KubernetesYaml.LoadAllFromString(text.Replace(right, wrong, StringComparison.Ordinal), strict: true), Throws.Exception, wrong);
    }

    [Test]
    public void The_unit_and_the_container_start_commands_that_there_are()
    {
        var unit = File.ReadAllLines(Path.Combine(Folder, "trimtab.service"));
        string Value(string name) => unit.Single(line => line.StartsWith(name + "=", StringComparison.Ordinal))[(name.Length + 1)..];
        Assert.That(int.Parse(Value("TimeoutStopSec")), Is.GreaterThan(DrainTime(Value("ExecStart").Split(' ')[1..])));
        var command = File.ReadAllLines(Path.Combine(Folder, "Containerfile")).Single(line => line.StartsWith("CMD ", StringComparison.Ordinal))[4..];
        DrainTime(System.Text.Json.JsonSerializer.Deserialize<string[]>(command)!);
    }
}

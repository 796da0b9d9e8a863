using Trimtab.Checkpoints;

namespace Trimtab.Model;

// Quantised checkpoints.
public static partial class HuggingFaceConfig
{
    private static QuantizationForm? Quantization(ConfigSection root)
    {
        if (root.Object("quantization_config") is not { } config || config.IsEmpty)
            return null;
        const string Method = "quant_method", Supported = "gptq, awq, compressed-tensors and fp8 (E4M3 with a scale a tensor or a row)";
        switch (config.Text(Method))
        {
            case "gptq":
                Bits(config);
                var format = config.Text("checkpoint_format") ?? "gptq";
                if (format is not ("gptq" or "gptq_v2"))
                    throw config.Unsupported("checkpoint_format", "gptq, gptq_v2");
                return new(QuantizationMethod.Gptq, GroupSize(config), config.Flag("sym", false), config.Flag("desc_act", false), format == "gptq" ? 1 : 0);
            case "awq":
                Bits(config);
                if (!"gemm".Equals(config.Text("version") ?? "gemm", StringComparison.OrdinalIgnoreCase))
                    throw config.Unsupported("version", "gemm");
                return new(QuantizationMethod.Awq, GroupSize(config), !config.Flag("zero_point", true));
            case "fp8":
                if (config.Has("weight_block_size"))
                    throw config.Unsupported("weight_block_size", "one scale a tensor or a row");
                return new(QuantizationMethod.Fp8);
            case "compressed-tensors":
                if ((config.Text("format") ?? "float-quantized") != "float-quantized")
                    throw config.Unsupported("format", "float-quantized");
                return new(QuantizationMethod.Fp8);
            default:
                throw config.Unsupported(Method, Supported);
        }
    }

    private static void Bits(ConfigSection config)
    {
        var field = config.Has("w_bit") ? "w_bit" : "bits";
        if (config.Size(field, 4) != 4)
            throw config.Unsupported(field, "4");
    }

    private static int GroupSize(ConfigSection config)
    {
        var field = config.Has("q_group_size") ? "q_group_size" : "group_size";
        var size = config.Size(field, 128, ConfigSection.MaxSize, -1);
        return size switch
        {
            -1 => 0,
            > 0 when size % 32 == 0 => size,
            _ => throw config.Unsupported(field, "-1, or a multiple of 32"),
        };
    }
}

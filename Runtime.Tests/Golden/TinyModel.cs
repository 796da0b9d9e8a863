using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json.Nodes;
using Trimtab.Checkpoints;
using Trimtab.Kernels;
using Trimtab.Model;

namespace Trimtab.Tests.Golden;

/// <summary>
/// Random models of the test's own, so that the suite means something without the golden fixtures: a LLaVA as a Hugging
/// Face folder, and a language model as a GGUF file whose matrices are in any block format.
/// </summary>
internal static class TinyModel
{
    public const string ImageToken = "<image>";

    /// <summary>Writes a LLaVA of random float32 weights: vision 28 px → 4 rows; decoder of 3 layers, grouped heads, biases nowhere.</summary>
    public static string WriteLlava(string folder, int seed = 1)
    {
        Directory.CreateDirectory(folder);
        var vocabulary = Vocabulary();
        File.WriteAllText(Path.Combine(folder, "config.json"), $$"""
            {
              "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "image_token_index": {{vocabulary.Count - 1}},
              "projector_hidden_act": "gelu", "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
              "text_config": { "model_type": "llama", "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
                "num_key_value_heads": 2, "head_dim": 20, "vocab_size": {{vocabulary.Count}}, "rms_norm_eps": 1e-5, "max_position_embeddings": 512,
                "bos_token_id": 0, "eos_token_id": 1 },
              "vision_config": { "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
                "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "projection_dim": 16 }
            }
            """);
        File.WriteAllText(Path.Combine(folder, "preprocessor_config.json"), """
            { "image_processor_type": "CLIPImageProcessor", "size": { "shortest_edge": 28 }, "crop_size": { "height": 28, "width": 28 },
              "do_resize": true, "do_center_crop": true, "do_rescale": true, "do_normalize": true, "resample": 3, "rescale_factor": 0.00392156862745098,
              "image_mean": [0.5, 0.4, 0.6], "image_std": [0.25, 0.3, 0.2] }
            """);
        File.WriteAllText(Path.Combine(folder, "tokenizer.json"), TokenizerJson(vocabulary));
        var random = new Random(seed);
        var tensors = new List<TensorData>();
        void Matrix(string name, params long[] shape) => tensors.Add(TensorData.Of(name, shape, Values(random, shape, 1 / MathF.Sqrt(shape[^1]))));
        void Norm(string name, int size) => tensors.Add(TensorData.Of(name, [size], Values(random, [size], 0.2f, 1)));
        void Bias(string name, int size) => tensors.Add(TensorData.Of(name, [size], Values(random, [size], 0.1f)));
        Matrix("model.language_model.embed_tokens.weight", vocabulary.Count, 48);
        Matrix("lm_head.weight", vocabulary.Count, 48);
        Norm("model.language_model.norm.weight", 48);
        for (var l = 0; l < 3; l++)
        {
            var at = $"model.language_model.layers.{l}.";
            Norm(at + "input_layernorm.weight", 48);
            Norm(at + "post_attention_layernorm.weight", 48);
            Matrix(at + "self_attn.q_proj.weight", 80, 48);
            Matrix(at + "self_attn.k_proj.weight", 40, 48);
            Matrix(at + "self_attn.v_proj.weight", 40, 48);
            Matrix(at + "self_attn.o_proj.weight", 48, 80);
            Matrix(at + "mlp.gate_proj.weight", 80, 48);
            Matrix(at + "mlp.up_proj.weight", 80, 48);
            Matrix(at + "mlp.down_proj.weight", 48, 80);
        }
        const string vision = "model.vision_tower.vision_model.";
        Matrix(vision + "embeddings.class_embedding", 32);
        Matrix(vision + "embeddings.patch_embedding.weight", 32, 3, 14, 14);
        Matrix(vision + "embeddings.position_embedding.weight", 5, 32);
        foreach (var norm in (string[])["pre_layrnorm", "post_layernorm"])
        {
            Norm(vision + norm + ".weight", 32);
            Bias(vision + norm + ".bias", 32);
        }
        for (var l = 0; l < 3; l++)
        {
            var at = $"{vision}encoder.layers.{l}.";
            foreach (var (name, rows, columns) in new[]
            {
                ("self_attn.q_proj", 32, 32), ("self_attn.k_proj", 32, 32), ("self_attn.v_proj", 32, 32), ("self_attn.out_proj", 32, 32),
                ("mlp.fc1", 64, 32), ("mlp.fc2", 32, 64),
            })
            {
                Matrix($"{at}{name}.weight", rows, columns);
                Bias($"{at}{name}.bias", rows);
            }
            foreach (var norm in (string[])["layer_norm1", "layer_norm2"])
            {
                Norm($"{at}{norm}.weight", 32);
                Bias($"{at}{norm}.bias", 32);
            }
        }
        foreach (var (name, columns) in new[] { ("linear_1", 32), ("linear_2", 48) })
        {
            Matrix($"model.multi_modal_projector.{name}.weight", 48, columns);
            Bias($"model.multi_modal_projector.{name}.bias", 48);
        }
        SafetensorsWriter.Write(Path.Combine(folder, "model.safetensors"), tensors);
        return folder;
    }

    /// <summary>Writes any model that config.json can describe, of random float32 weights.</summary>
    /// <param name="folder">Where.</param>
    /// <param name="config">config.json, in which $V stands for the vocabulary's size and $0, $1, … for the ids of <paramref name="special"/>.</param>
    /// <param name="processor">preprocessor_config.json, or empty.</param>
    /// <param name="special">Special tokens after those of every tiny model, which has &lt;s&gt;, &lt;/s&gt; and &lt;image&gt;.</param>
    public static string Write(string folder, string config, string processor = "", params ReadOnlySpan<string> special)
    {
        Directory.CreateDirectory(folder);
        var vocabulary = Vocabulary();
        for (var i = 0; i < special.Length; i++)
        {
            config = config.Replace($"${i}", $"{vocabulary.Count}", StringComparison.Ordinal);
            vocabulary.Add(special[i]);
        }
        config = config.Replace("$V", $"{vocabulary.Count}", StringComparison.Ordinal).Replace("$I", $"{vocabulary.IndexOf(ImageToken)}", StringComparison.Ordinal);
        File.WriteAllText(Path.Combine(folder, "config.json"), config);
        File.WriteAllText(Path.Combine(folder, "tokenizer.json"), TokenizerJson(vocabulary));
        File.WriteAllText(Path.Combine(folder, "tokenizer_config.json"), """{ "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": false }""");
        if (processor.Length > 0)
            File.WriteAllText(Path.Combine(folder, "preprocessor_config.json"), processor);
        var random = new Random(1);
        SafetensorsWriter.Write(Path.Combine(folder, "model.safetensors"),
            TensorNames.Expect(HuggingFaceConfig.Parse(Encoding.UTF8.GetBytes(config), folder), new(LayoutForm.HuggingFace)).Select(e => TensorData.Of(e.Name, e.Shape,
                e.Shape.Length > 1 ? Values(random, e.Shape, 1 / MathF.Sqrt(e.Shape[^1]))
                : e.Name.Contains("norm", StringComparison.Ordinal) && !e.Name.EndsWith("bias", StringComparison.Ordinal) ? Values(random, e.Shape, 0.2f, 1)
                : Values(random, e.Shape, 0.1f))).ToList());
        return folder;
    }

    /// <summary>Writes a LLaMA GGUF of 2 layers whose matrices are random blocks of one format; width 256, so that every format fits.</summary>
    public static string WriteGguf(string path, DType type, int seed = 1)
    {
        const int d = 256, heads = 4, kv = 2, headSize = 64, mlp = 512;
        var vocabulary = Vocabulary();
        var random = new Random(seed);
        var metadata = new List<KeyValuePair<string, object>>
        {
            new("general.architecture", "llama"),
            new("llama.embedding_length", (uint)d),
            new("llama.block_count", 2u),
            new("llama.feed_forward_length", (uint)mlp),
            new("llama.attention.head_count", (uint)heads),
            new("llama.attention.head_count_kv", (uint)kv),
            new("llama.attention.layer_norm_rms_epsilon", 1e-5f),
            new("llama.rope.dimension_count", (uint)headSize),
            new("llama.rope.freq_base", 10000f),
            new("llama.context_length", 512u),
            new("tokenizer.ggml.model", "gpt2"),
            new("tokenizer.ggml.pre", "gpt-2"),
            new("tokenizer.ggml.tokens", vocabulary.ToArray()),
            new("tokenizer.ggml.token_type", vocabulary.Select((_, i) => i < 2 || i == vocabulary.Count - 1 ? 3 : 1).ToArray()),
            new("tokenizer.ggml.merges", Merges().ToArray()),
            new("tokenizer.ggml.bos_token_id", 0u),
            new("tokenizer.ggml.eos_token_id", 1u),
            new("tokenizer.ggml.add_bos_token", false),
        };
        var tensors = new List<TensorData>();
        void Matrix(string name, int rows, int columns) => tensors.Add(TensorData.Of(name, type, [rows, columns], RandomBlocks(random, type, rows, columns)));
        void Norm(string name) => tensors.Add(TensorData.Of(name, [d], Values(random, [d], 0.2f, 1)));
        Matrix("token_embd.weight", vocabulary.Count, d);
        Matrix("output.weight", vocabulary.Count, d);
        Norm("output_norm.weight");
        for (var l = 0; l < 2; l++)
        {
            Norm($"blk.{l}.attn_norm.weight");
            Norm($"blk.{l}.ffn_norm.weight");
            Matrix($"blk.{l}.attn_q.weight", heads * headSize, d);
            Matrix($"blk.{l}.attn_k.weight", kv * headSize, d);
            Matrix($"blk.{l}.attn_v.weight", kv * headSize, d);
            Matrix($"blk.{l}.attn_output.weight", d, heads * headSize);
            Matrix($"blk.{l}.ffn_gate.weight", mlp, d);
            Matrix($"blk.{l}.ffn_up.weight", mlp, d);
            Matrix($"blk.{l}.ffn_down.weight", d, mlp);
        }
        GgufWriter.Write(path, metadata, tensors);
        return path;
    }

    /// <summary>Blocks of random bits under small scales, so that every code of the format occurs and sums stay in range.</summary>
    private static byte[] RandomBlocks(Random random, DType type, int rows, int columns)
    {
        var bytes = new byte[type.RowBytes(columns) * rows];
        if (!type.IsQuantized())
        {
            var values = Values(random, [rows, columns], 1 / MathF.Sqrt(columns));
            Blocks.Quantize(type, values, bytes);
            return bytes;
        }
        random.NextBytes(bytes);
        var (size, scales, magnitude) = (type.BlockBytes(), type switch
        {
            DType.Q4_1 or DType.Q5_1 or DType.Q4_K or DType.Q5_K => new[] { 0, 2 },
            DType.Q2_K => [80, 82],
            DType.Q3_K => [108],
            DType.Q6_K => [208],
            _ => [0],
        }, type switch
        {
            DType.Q4_0 or DType.Q4_1 or DType.Q5_0 or DType.Q5_1 or DType.Q2_K => 0.005f,
            DType.Q3_K or DType.Q4_K or DType.Q5_K => 0.0005f,
            DType.Q8_0 => 0.0008f,
            _ => 0.00005f,
        });
        for (var block = 0; block < bytes.Length; block += size)
        {
            foreach (var at in scales)
                MemoryMarshal.Write(bytes.AsSpan(block + at), (Half)((random.NextSingle() - 0.4f) * magnitude));
        }
        return bytes;
    }

    private static float[] Values(Random random, long[] shape, float scale, float offset = 0)
    {
        var values = new float[shape.Aggregate(1L, (a, b) => a * b)];
        for (var i = 0; i < values.Length; i++)
            values[i] = offset + (random.NextSingle() * 2 - 1) * scale * 1.7f;
        return values;
    }

    /// <summary>Two specials, the 256 byte symbols, the merges, and the image token at the end.</summary>
    private static List<string> Vocabulary()
    {
        List<string> tokens = ["<s>", "</s>"];
        var extra = 0;
        for (var b = 0; b < 256; b++)
        {
            var printable = b is >= 33 and <= 126 or >= 161 and <= 172 or >= 174;
            tokens.Add(((char)(printable ? b : 256 + extra++)).ToString());
        }
        tokens.AddRange(Merges().Select(m => m.Replace(" ", "", StringComparison.Ordinal)));
        tokens.Add(ImageToken);
        return tokens;
    }

    private static IEnumerable<string> Merges() => ["t h", "th e", "Ġ the", "i n", "a n", "Ġ a", "e r", "o n"];

    private static string TokenizerJson(List<string> vocabulary)
    {
        var ids = new JsonObject();
        for (var i = 0; i < vocabulary.Count; i++)
            ids[vocabulary[i]] = i;
        JsonObject Added(int id) => new()
        {
            ["id"] = id, ["content"] = vocabulary[id], ["single_word"] = false, ["lstrip"] = false, ["rstrip"] = false, ["normalized"] = false, ["special"] = true,
        };
        return new JsonObject
        {
            ["version"] = "1.0",
            ["added_tokens"] = new JsonArray([Added(0), Added(1), .. Enumerable.Range(vocabulary.IndexOf(ImageToken), vocabulary.Count - vocabulary.IndexOf(ImageToken)).Select(Added)]),
            ["normalizer"] = null,
            ["pre_tokenizer"] = new JsonObject { ["type"] = "ByteLevel", ["add_prefix_space"] = false, ["trim_offsets"] = true, ["use_regex"] = true },
            ["post_processor"] = null,
            ["decoder"] = new JsonObject { ["type"] = "ByteLevel", ["add_prefix_space"] = true, ["trim_offsets"] = true, ["use_regex"] = true },
            ["model"] = new JsonObject
            {
                ["type"] = "BPE", ["dropout"] = null, ["unk_token"] = null, ["continuing_subword_prefix"] = null, ["end_of_word_suffix"] = null,
                ["fuse_unk"] = false, ["byte_fallback"] = false, ["vocab"] = ids, ["merges"] = new JsonArray([.. Merges().Select(m => (JsonNode)m)]),
            },
        }.ToJsonString();
    }
}

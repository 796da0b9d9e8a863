using System.Text.Json;
using Trimtab.Kernels;

namespace Trimtab.Tests.Kernels;

public class BlocksTests
{
    [TestCaseSource(nameof(Fixtures))]
    public void Reads_blocks_as_the_fixtures_say_bit_for_bit(DType type)
    {
        var expected = Tensor<float>($"{type}.values");
        var actual = new float[expected.Length];
        Blocks.Dequantize(type, Tensor<byte>($"{type}.raw"), actual);
        for (var i = 0; i < actual.Length; i++)
            Assert.That(BitConverter.SingleToInt32Bits(actual[i]), Is.EqualTo(BitConverter.SingleToInt32Bits(expected[i])), $"element {i}: {actual[i]}, expected {expected[i]}");
    }

    [TestCase(DType.F16), TestCase(DType.BF16), TestCase(DType.Q8_0), TestCase(DType.Q4_0), TestCase(DType.Q4_1)]
    public void Writes_blocks_as_the_fixtures_do(DType type)
    {
        var source = Tensor<float>($"{type}.source");
        var actual = new byte[type.RowBytes(source.Length)];
        Blocks.Quantize(type, source, actual);
        Assert.That(actual, Is.EqualTo(Tensor<byte>($"{type}.raw")[..actual.Length]));
    }

    [Test]
    public void An_int4_group_is_its_scale_times_what_lies_above_its_zero([Values(DType.I4G32, DType.I4G64, DType.I4G128)] DType type)
    {
        var random = new Random(3);
        int[] codes = [.. Enumerable.Range(0, type.BlockSize()).Select(_ => random.Next(16))];
        var bytes = new byte[type.BlockBytes()];
        System.Buffers.Binary.BinaryPrimitives.WriteHalfLittleEndian(bytes, (Half)(-0.0123f));
        System.Buffers.Binary.BinaryPrimitives.WriteHalfLittleEndian(bytes.AsSpan(2), (Half)11);
        for (var i = 0; i < codes.Length; i++)
            bytes[4 + i / 32 * 16 + i % 16] |= (byte)(codes[i] << (i % 32 < 16 ? 0 : 4));
        var actual = new float[codes.Length];
        Blocks.Dequantize(type, bytes, actual);
        Assert.That(Array.ConvertAll(actual, v => (double)v), Is.EqualTo(Array.ConvertAll(codes, code => (code - 11) * (double)(Half)(-0.0123f))));
    }

    [Test]
    public void Eight_bit_floats_are_those_of_the_OCP_specification()
    {
        Span<float> values = new float[256];
        var bytes = Enumerable.Range(0, 256).Select(i => (byte)i).ToArray();
        Blocks.Dequantize(DType.F8E4M3, bytes, values);
        Assert.That(new[] { values[0x00], values[0x01], values[0x08], values[0x38], values[0x7E], values[0xFE], values[0x81] },
            Is.EqualTo(new[] { 0, 1 / 512f, 1 / 64f, 1, 448, -448, -1 / 512f }));
        Assert.That(float.IsNaN(values[0x7F]) && float.IsNaN(values[0xFF]) && float.IsNegative(values[0x80]));
        Blocks.Dequantize(DType.F8E5M2, bytes, values);
        Assert.That(new[] { values[0x01], values[0x3C], values[0x7B], values[0x7C], values[0xFC] },
            Is.EqualTo(new[] { 1 / 65536f, 1, 57344, float.PositiveInfinity, float.NegativeInfinity }));
        Assert.That(values[0x7D], Is.NaN);
    }

    [Test]
    public void E4M3_rounds_to_nearest_even_and_saturates()
    {
        var values = new float[128];
        Blocks.Dequantize(DType.F8E4M3, [.. Enumerable.Range(0, 128).Select(i => (byte)i)], values);
        byte Stored(float value)
        {
            var target = new byte[1];
            Blocks.Quantize(DType.F8E4M3, [value], target);
            return target[0];
        }
        for (var code = 0; code < 127; code++)
        {
            Assert.That((Stored(values[code]), Stored(-values[code])), Is.EqualTo(((byte)code, (byte)(code | 0x80))));
            if (code == 126)
                break;
            var middle = (values[code] + values[code + 1]) / 2;
            Assert.That((Stored(MathF.BitDecrement(middle)), Stored(middle), Stored(MathF.BitIncrement(middle))),
                Is.EqualTo(((byte)code, (byte)(code + code % 2), (byte)(code + 1))), $"between {values[code]} and its neighbour");
        }
        Assert.That(((float[])[449, 1e30f, float.PositiveInfinity, float.NaN]).Select(Stored), Is.All.EqualTo(0x7E).Or.EqualTo(0xFE));
        Assert.That((Stored(-500), Stored(float.NegativeInfinity), Stored(1e-10f), Stored(-0f)), Is.EqualTo(((byte)0xFE, (byte)0xFE, (byte)0, (byte)0x80)));
    }

    [Test]
    public void BF16_rounds_to_nearest_even_and_keeps_what_is_not_finite()
    {
        var bytes = new byte[14];
        Blocks.Quantize(DType.BF16, [Bits(0x3F808000), Bits(0x3F818000), Bits(0x3F808001), Bits(0x7F7FFFFF), float.NegativeInfinity, Bits(0x7F800001), -0f], bytes);
        var actual = System.Runtime.InteropServices.MemoryMarshal.Cast<byte, ushort>(bytes).ToArray();
        Assert.That(actual, Is.EqualTo(new ushort[] { 0x3F80, 0x3F82, 0x3F81, 0x7F80, 0xFF80, 0x7FC0, 0x8000 }));

        static float Bits(uint bits) => BitConverter.UInt32BitsToSingle(bits);
    }

    [Test]
    public void Blocks_of_zeros_and_of_one_value_survive([Values(DType.Q8_0, DType.Q4_0, DType.Q4_1)] DType type)
    {
        float[] values = [.. new float[32], .. Enumerable.Repeat(-2f, 32), .. Enumerable.Repeat(1e-30f, 32)], actual = new float[96];
        var bytes = new byte[type.RowBytes(96)];
        Blocks.Quantize(type, values, bytes);
        Blocks.Dequantize(type, bytes, actual);
        Assert.That(actual, Is.EqualTo(values).Within(2e-3));
    }

    [Test]
    public void Quantising_costs_half_a_step_at_most([Values(DType.Q8_0, DType.Q4_0, DType.Q4_1)] DType type)
    {
        var random = new Random(5);
        var values = Enumerable.Range(0, 32 * 50).Select(i => (random.NextSingle() - 0.5f) * MathF.Pow(4, i / 32 % 5)).ToArray();
        var actual = new float[values.Length];
        var bytes = new byte[type.RowBytes(values.Length)];
        Blocks.Quantize(type, values, bytes);
        Blocks.Dequantize(type, bytes, actual);
        for (var b = 0; b < values.Length; b += 32)
        {
            var block = values.AsSpan(b, 32).ToArray();
            var largest = block.Max(Math.Abs);
            var step = type == DType.Q8_0 ? largest / 127 : type == DType.Q4_0 ? largest / 8 : (block.Max() - block.Min()) / 15;
            // Q4_0 has no +8: the far end is a whole step away.
            var bound = (type == DType.Q4_0 ? 1 : 0.5) * step + largest * 2e-3;
            for (var i = 0; i < 32; i++)
                Assert.That(Math.Abs(actual[b + i] - block[i]), Is.LessThanOrEqualTo(bound));
        }
    }

    [Test]
    public void Lengths_that_do_not_fit_are_refused_for_every_form()
    {
        foreach (var type in BlocksData.Readable)
        {
            int size = type.BlockSize(), bytes = type.BlockBytes();
            for (var elements = 0; elements <= 2 * size + 1; elements += Math.Max(1, size / 8))
                for (var extra = -2; extra <= 2; extra++)
                {
                    var length = elements / size * bytes + extra;
                    if (length < 0)
                        continue;
                    void Read() => Blocks.Dequantize(type, new byte[length], new float[elements]);
                    if (elements % size == 0 && extra == 0)
                        Assert.DoesNotThrow(Read);
                    else
                        Assert.That(Read, Throws.ArgumentException.With.Message.Contains(type.ToString()));
                }
        }
    }

    [Test]
    public void Random_bytes_never_fail()
    {
        var random = new Random(1);
        foreach (var type in BlocksData.Readable)
        {
            var bytes = new byte[type.BlockBytes() * 64];
            random.NextBytes(bytes);
            Blocks.Dequantize(type, bytes, new float[type.BlockSize() * 64]);
        }
    }

    [Test]
    public void Forms_that_cannot_be_written_or_read_are_named()
    {
        Assert.That(() => Blocks.Quantize(DType.Q4_K, new float[256], new byte[144]), Throws.TypeOf<NotSupportedException>().With.Message.Contains("Q4_K"));
        Assert.That(() => Blocks.Dequantize(DType.I32, new byte[4], new float[1]), Throws.TypeOf<NotSupportedException>().With.Message.Contains("I32"));
    }

    private static IEnumerable<DType> Fixtures() => BlocksData.Readable.Except([DType.F32, DType.F64, DType.F8E4M3, DType.F8E5M2, DType.I4G32, DType.I4G64, DType.I4G128]);

    /// <summary>A tensor of blocks.safetensors.</summary>
    private static T[] Tensor<T>(string name) where T : unmanaged
    {
        var file = File.ReadAllBytes(Shared.Path("fixtures", "expected", "blocks.safetensors"));
        var header = (int)BitConverter.ToInt64(file);
        using var json = JsonDocument.Parse(file.AsMemory(8, header));
        var offsets = json.RootElement.GetProperty(name).GetProperty("data_offsets");
        var data = file.AsSpan(8 + header)[offsets[0].GetInt32()..offsets[1].GetInt32()];
        return System.Runtime.InteropServices.MemoryMarshal.Cast<byte, T>(data).ToArray();
    }
}

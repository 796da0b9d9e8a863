using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Trimtab.Kernels.Cpu;

internal sealed unsafe partial class EmittedDot
{
    /// <summary>
    /// Tokens in eight bits with packed chunks; elements are unpacked in registers. Zen 4 does one 512-bit vpdpbusd a cycle on the two
    /// ports that multiply floats, too: a block has eight of them for a product of scales and a multiply-add, so 80 % of the peak is the bound.
    /// </summary>
    private sealed class IntegerKernel(Assembler c, DType form, int tokens, int panels) : Kernel(c, tokens, panels)
    {
        /// <summary>Blocks of every third token, scales of each panel's next group, and each panel's chunk.</summary>
        private static readonly AssemblerRegister64[] Blocks = [r10, r11], Head = [r12, r13], Chunk = [r14, r15];

        private readonly bool _hasMinimum = form is DType.Q4_1 or DType.Q4_K;
        private readonly AssemblerRegisterZMM[,] _sum = new AssemblerRegisterZMM[tokens, panels], _total = new AssemblerRegisterZMM[tokens, panels];

        // One or two tokens have few chains of vpdpbusd, each as long as its latency of four cycles makes it: a group's sums are cut into parts.
        private readonly int _parts = tokens switch { 1 => 4, 2 => 2, _ => 1 };
        private readonly AssemblerRegisterZMM _four = zmm0, _two = zmm1;
        private readonly AssemblerRegisterZMM[] _first = [zmm2, zmm3], _second = [zmm4, zmm5];
        private readonly AssemblerRegisterZMM _product = zmm6, _product2 = zmm7;

        private int HeadBytes => form == DType.Q4_1 ? 64 : 32;

        private int GroupBytes => form switch { DType.Q8_0 => 512, DType.Q6_K => 384, _ => 256 };

        protected override void Body()
        {
            for (var t = 0; t < Tokens; t++)
                for (var p = 0; p < Panels; p++)
                {
                    _sum[t, p] = Part(t, p, 0);
                    _total[t, p] = Registers[20 + t * Panels + p];
                }
            Broadcast(_four, 0x0F0F0F0F);
            if (form == DType.Q6_K)
                Broadcast(_two, 0x30303030);
            Begin(_total);
            C.mov(Blocks[0], Field(nameof(EmittedJob.Block)));
            C.add(Blocks[0], X[0]);
            Thirds(X);
            Thirds(Blocks);
            Label chunk = C.CreateLabel(), loop = C.CreateLabel();
            C.Label(ref chunk);
            for (var p = 0; p < Panels; p++)
            {
                C.mov(Chunk[p], Panel[p]);
                C.lea(Head[p], __[Panel[p] + (form switch { DType.Q4_K => 128, DType.Q6_K => 64, _ => 0 })]);
                // The scales of a chunk come before its elements.
                switch (form)
                {
                    case DType.Q4_K: C.add(Panel[p], FormQ4_K.HeadBytes(8)); break;
                    case DType.Q6_K: C.add(Panel[p], FormQ6_K.HeadBytes(16)); break;
                    default:
                        C.imul(rdi, Count, HeadBytes);
                        C.add(rdi, 63);
                        C.and(rdi, -64);
                        C.add(Panel[p], rdi);
                        break;
                }
            }
            C.Label(ref loop);
            for (var half = 0; half < (form == DType.Q6_K ? 2 : 1); half++)
                Group(half);
            for (var p = 0; p < Panels; p++)
            {
                C.add(Panel[p], GroupBytes);
                C.add(Head[p], HeadBytes);
            }
            for (var t = 0; t < Tokens; t += 3)
            {
                C.add(X[t / 3], ActivationRows.Block);
                C.add(Blocks[t / 3], ActivationRows.Block);
            }
            C.dec(Count);
            C.jne(loop);
            C.mov(Count, Field(nameof(EmittedJob.Count)));
            C.dec(Field(nameof(EmittedJob.Chunks)));
            C.jne(chunk);
            Totals(_total, load: false);
        }

        private AssemblerRegisterZMM Part(int t, int p, int part) => Registers[8 + (t * Panels + p) * _parts + part];

        private void Broadcast(AssemblerRegisterZMM register, uint bits)
        {
            C.mov(edi, bits);
            C.vpbroadcastd(register, edi);
        }

        private void Group(int half)
        {
            int vectors = form == DType.Q6_K ? 4 : 8, center = form switch
            {
                DType.Q8_0 => ActivationRows.Center128,
                DType.Q4_0 => ActivationRows.Center8,
                _ => ActivationRows.Center32 + 4 * half,
            };
            for (var t = 0; t < Tokens; t++)
                for (var p = 0; p < Panels; p++)
                    if (_hasMinimum)
                        C.vpxord(_sum[t, p], _sum[t, p], _sum[t, p]);
                    else if (p == 0)
                        C.vpbroadcastd(_sum[t, p], Plain(Blocks, t, center));
                    else
                        C.vmovdqa32(_sum[t, p], _sum[t, 0]);
            for (var t = 0; t < Tokens; t++)
                for (var p = 0; p < Panels; p++)
                    for (var part = 1; part < _parts; part++)
                        C.vpxord(Part(t, p, part), Part(t, p, part), Part(t, p, part));
            for (var v = 0; v < vectors; v += 2)
            {
                for (var p = 0; p < Panels; p++)
                    Pair(p, half, v / 2);
                Step(_first, v);
                Step(_second, v + 1);
            }
            for (var p = 0; p < Panels; p++)
                Scale(p, half);
            for (var apart = _parts / 2; apart > 0; apart /= 2)
                for (var t = 0; t < Tokens; t++)
                    for (var p = 0; p < Panels; p++)
                        for (var part = 0; part < apart; part++)
                            C.vpaddd(Part(t, p, part), Part(t, p, part), Part(t, p, part + apart));
            for (var t = 0; t < Tokens; t++)
                for (var p = 0; p < Panels; p++)
                {
                    var product = p == 0 ? _product : _product2;
                    C.vcvtdq2ps(_sum[t, p], _sum[t, p]);
                    C.vmulps(product, _first[p], At(Blocks, t, 0));
                    C.vfmadd231ps(_total[t, p], _sum[t, p], product);
                }
            if (_hasMinimum)
                for (var t = 0; t < Tokens; t++)
                    for (var p = 0; p < Panels; p++)
                        C.vfmadd231ps(_total[t, p], _second[p], At(Blocks, t, ActivationRows.ScaledSum));

            void Step(AssemblerRegisterZMM[] w, int v)
            {
                for (var t = 0; t < Tokens; t++)
                    for (var p = 0; p < Panels; p++)
                        C.vpdpbusd(Part(t, p, v % _parts), w[p], At(X, t, 16 * half + 4 * v));
            }
        }

        /// <summary>Two vectors of elements.</summary>
        private void Pair(int p, int half, int pair)
        {
            AssemblerRegisterZMM first = _first[p], second = _second[p];
            switch (form)
            {
                case DType.Q8_0:
                    C.vmovups(first, __zmmword_ptr[Panel[p] + 128 * pair]);
                    C.vmovups(second, __zmmword_ptr[Panel[p] + (128 * pair + 64)]);
                    break;
                case DType.Q6_K:
                    C.vmovups(second, __zmmword_ptr[Panel[p] + (192 * half + 64 * pair)]);
                    C.vmovups(_product, __zmmword_ptr[Panel[p] + (192 * half + 128)]);
                    if (pair == 1)
                        C.vpsrld(_product, _product, 4);
                    C.vpandd(first, second, _four);
                    C.vpsrld(second, second, 4);
                    C.vpandd(second, second, _four);
                    C.vpslld(_product2, _product, 4);
                    C.vpternlogd(first, _product2, _two, 0xF8); // first | product2 & two
                    C.vpslld(_product2, _product, 2);
                    C.vpternlogd(second, _product2, _two, 0xF8);
                    break;
                default:
                    C.vmovups(second, __zmmword_ptr[Panel[p] + 64 * pair]);
                    C.vpandd(first, second, _four);
                    C.vpsrld(second, second, 4);
                    C.vpandd(second, second, _four);
                    break;
            }
        }

        /// <summary>A group's scales where the first elements were, its offsets where the second were.</summary>
        private void Scale(int p, int half)
        {
            AssemblerRegisterZMM scale = _first[p], offset = _second[p];
            switch (form)
            {
                case DType.Q4_1:
                    C.vcvtph2ps(offset, __ymmword_ptr[Head[p] + 32]);
                    C.vcvtph2ps(scale, __ymmword_ptr[Head[p]]);
                    break;
                case DType.Q4_K:
                    C.vpmovzxbd(scale, __xmmword_ptr[Head[p]]);
                    C.vpmovzxbd(offset, __xmmword_ptr[Head[p] + 16]);
                    C.vcvtdq2ps(scale, scale);
                    C.vcvtdq2ps(offset, offset);
                    C.vmulps(scale, scale, __zmmword_ptr[Chunk[p]]);
                    C.vmulps(offset, offset, __zmmword_ptr[Chunk[p] + 64]);
                    break;
                case DType.Q6_K:
                    C.vpmovzxbd(scale, __xmmword_ptr[Head[p] + 16 * half]);
                    C.vcvtdq2ps(scale, scale);
                    C.mov(edi, BitConverter.SingleToInt32Bits(128));
                    C.vpbroadcastd(offset, edi);
                    C.vsubps(scale, scale, offset);
                    C.vmulps(scale, scale, __zmmword_ptr[Chunk[p]]);
                    break;
                default:
                    C.vcvtph2ps(scale, __ymmword_ptr[Head[p]]);
                    break;
            }
        }

        private static AssemblerMemoryOperand Plain(ReadOnlySpan<AssemblerRegister64> x, int token, int offset) => (token % 3) switch
        {
            0 => __dword_ptr[x[token / 3] + offset],
            1 => __dword_ptr[x[token / 3] + Stride + offset],
            _ => __dword_ptr[x[token / 3] + Stride * 2 + offset],
        };
    }
}

using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Trimtab.Kernels.Cpu;

internal sealed unsafe partial class EmittedDot
{
    /// <summary>
    /// Tokens in BF16 with packed chunks: a vdpbf16ps adds two columns' products to a sum, twice the rate of a multiply-add on Zen 4.
    /// One chain a sum, over all chunks.
    /// </summary>
    private sealed class BF16Kernel(Assembler c, int tokens, int panels) : Kernel(c, tokens, panels)
    {
        protected override void Body()
        {
            var total = new AssemblerRegisterZMM[Tokens, Panels];
            AssemblerRegisterZMM[] w = [zmm0, zmm1];
            for (var t = 0; t < Tokens; t++)
                for (var p = 0; p < Panels; p++)
                    total[t, p] = Registers[8 + t * Panels + p];
            Thirds(X);
            Begin(total);
            var loop = C.CreateLabel();
            C.Label(ref loop);
            for (var p = 0; p < Panels; p++)
                C.vmovups(w[p], __zmmword_ptr[Panel[p]]);
            for (var t = 0; t < Tokens; t++)
                for (var p = 0; p < Panels; p++)
                    C.vdpbf16ps(total[t, p], w[p], At(X, t, 0));
            for (var p = 0; p < Panels; p++)
                C.add(Panel[p], 64);
            for (var t = 0; t < Tokens; t += 3)
                C.add(X[t / 3], 4);
            C.dec(Count);
            C.jne(loop);
            Totals(total, load: false);
        }
    }
}

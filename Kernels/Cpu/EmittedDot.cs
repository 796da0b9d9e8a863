using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Trimtab.Kernels.Cpu;

/// <summary>What an emitted kernel works on: some tokens and a chunk of one panel or the same chunk of two.</summary>
internal unsafe struct EmittedJob
{
    /// <summary>The chunks.</summary>
    public byte* Panel, Panel2;
    /// <summary>The first token's elements where the chunk begins.</summary>
    public byte* X;
    /// <summary>Bytes from a token to the next.</summary>
    public nint Stride;
    /// <summary>From a token's elements to their block (integers only).</summary>
    public nint Block;
    /// <summary>Blocks of 32 columns in a chunk, or pairs of columns.</summary>
    public nint Count;
    /// <summary>Chunks, one after another (integers only).</summary>
    public nint Chunks;
    /// <summary>Sums of each panel, 16 a token.</summary>
    public float* Total, Total2;
    /// <summary>Whether the totals begin with what is in memory.</summary>
    public nint Continues;
}

/// <summary>
/// Inner kernels of dot products in machine code, for instructions that the intrinsics leave out (512-bit vpdpbusd: 64 products of bytes,
/// vdpbf16ps: 32 products of BF16, vcvtph2ps) and for as many sums in registers as there are registers. Made when first called, one for
/// each form and number of tokens and panels. Integer kernels give the bits of <see cref="IntegerDot{T}"/>: the same integers, the same chain
/// of multiply-adds. Memory is writable first and executable then, never both.
/// </summary>
internal sealed unsafe partial class EmittedDot
{
    /// <summary>Most tokens of a kernel for integers: six tokens and two panels have 12 sums and 12 totals in the 32 registers.</summary>
    public const int IntegerTokens = 6;

    /// <summary>Most tokens of a kernel for BF16: twelve tokens and two panels have 24 sums.</summary>
    public const int BF16Tokens = 12;

    private const int Forms = 32;

    private readonly nint[] _code = new nint[Forms * (BF16Tokens + 1) * 2];

    private EmittedDot(bool hasBF16) => HasBF16 = hasBF16;

    /// <summary>The kernels of this process, or null: a processor without the instruction, a system without executable memory, or TRIMTAB_EMIT=0.</summary>
    public static EmittedDot? Instance { get; } = Environment.GetEnvironmentVariable("TRIMTAB_EMIT") == "0" ? null : Find();

    /// <summary>Whether the processor multiplies pairs of BF16.</summary>
    public bool HasBF16 { get; }

    /// <summary>Does a job.</summary>
    public void Run(DType form, int tokens, bool two, EmittedJob* job)
    {
        var index = ((int)form * (BF16Tokens + 1) + tokens) * 2 + (two ? 1 : 0);
        var code = Volatile.Read(ref _code[index]);
        if (code == 0)
            code = Make(index, form, tokens, two ? 2 : 1);
        ((delegate* unmanaged[SuppressGCTransition]<EmittedJob*, void>)code)(job);
    }

    /// <summary>Tokens to take next, when so many are left and a kernel takes at most so many: groups of nearly the same size.</summary>
    public static int Next(int tokens, int most)
    {
        var groups = (tokens + most - 1) / most;
        return (tokens + groups - 1) / groups;
    }

    private static EmittedDot? Find()
    {
        // CPUID leaf 7, ECX bit 11: AVX512_VNNI; subleaf 1, EAX bit 5: AVX512_BF16.
        if (!Lanes512.IsSupported || RuntimeInformation.ProcessArchitecture != Architecture.X64 || (X86Base.CpuId(7, 0).Ecx & 1 << 11) == 0)
            return null;
        var emitted = new EmittedDot((X86Base.CpuId(7, 1).Eax & 1 << 5) != 0);
        return Assemble(DType.Q8_0, 1, 1) is { } code && (emitted._code[((int)DType.Q8_0 * (BF16Tokens + 1) + 1) * 2] = code) != 0 ? emitted : null;
    }

    private nint Make(int index, DType form, int tokens, int panels)
    {
        lock (_code)
        {
            if (_code[index] == 0)
                Volatile.Write(ref _code[index], Assemble(form, tokens, panels) ?? throw new OutOfMemoryException("there is no room for a kernel's code"));
            return _code[index];
        }
    }

    private static nint? Assemble(DType form, int tokens, int panels) => Place(c =>
    {
        Kernel kernel = form == DType.BF16 ? new BF16Kernel(c, tokens, panels) : new IntegerKernel(c, form, tokens, panels);
        kernel.Emit();
    });

    private static nint? Place(Action<Assembler> emit)
    {
        using var code = new MemoryStream();
        var c = new Assembler(64);
        emit(c);
        c.Assemble(new StreamCodeWriter(code), 0); // jumps are relative: the address does not matter
        var memory = ExecutableMemory.Create(code.GetBuffer().AsSpan(0, (int)code.Length));
        return memory is null ? null : (nint)memory;
    }

    /// <summary>What all kernels begin and end with.</summary>
    private abstract class Kernel(Assembler c, int tokens, int panels)
    {
        // What a function has to give back, Windows' vector registers among it.
        private static readonly AssemblerRegister64[] Kept = [rbx, rsi, rdi, r12, r13, r14, r15];

        private static readonly AssemblerRegisterXMM[] Saved = [xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15];

        protected static readonly AssemblerRegisterZMM[] Registers = [
            zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7, zmm8, zmm9, zmm10, zmm11, zmm12, zmm13, zmm14, zmm15,
            zmm16, zmm17, zmm18, zmm19, zmm20, zmm21, zmm22, zmm23, zmm24, zmm25, zmm26, zmm27, zmm28, zmm29, zmm30, zmm31];

        protected static AssemblerRegister64 Job => rax;

        protected static AssemblerRegister64 Count => rbx;

        /// <summary>Next bytes of each panel.</summary>
        protected static readonly AssemblerRegister64[] Panel = [rdx, rcx];

        /// <summary>Every third token's address; those between are one or two strides on.</summary>
        protected static readonly AssemblerRegister64[] X = [r8, r9, r10, r11];

        protected static AssemblerRegister64 Stride => rsi;

        protected Assembler C => c;

        protected int Tokens => tokens;

        protected int Panels => panels;

        public void Emit()
        {
            var windows = OperatingSystem.IsWindows();
            foreach (var register in Kept)
                c.push(register);
            c.mov(Job, windows ? rcx : rdi);
            if (windows)
            {
                c.sub(rsp, 16 * Saved.Length);
                for (var i = 0; i < Saved.Length; i++)
                    c.vmovups(__xmmword_ptr[rsp + 16 * i], Saved[i]);
            }
            for (var p = 0; p < panels; p++)
                c.mov(Panel[p], Field(p == 0 ? nameof(EmittedJob.Panel) : nameof(EmittedJob.Panel2)));
            c.mov(Stride, Field(nameof(EmittedJob.Stride)));
            c.mov(X[0], Field(nameof(EmittedJob.X)));
            c.mov(Count, Field(nameof(EmittedJob.Count)));
            Body();
            c.vzeroupper();
            if (windows)
            {
                for (var i = 0; i < Saved.Length; i++)
                    c.vmovups(Saved[i], __xmmword_ptr[rsp + 16 * i]);
                c.add(rsp, 16 * Saved.Length);
            }
            for (var i = Kept.Length - 1; i >= 0; i--)
                c.pop(Kept[i]);
            c.ret();
        }

        protected abstract void Body();

        /// <summary>Addresses of every third token after the first.</summary>
        protected void Thirds(ReadOnlySpan<AssemblerRegister64> x)
        {
            for (var t = 3; t < tokens; t += 3)
            {
                c.lea(x[t / 3], __[x[t / 3 - 1] + Stride * 2]);
                c.add(x[t / 3], Stride);
            }
        }

        /// <summary>Where a token's data lie.</summary>
        protected static AssemblerMemoryOperand At(ReadOnlySpan<AssemblerRegister64> x, int token, int offset) => (token % 3) switch
        {
            0 => __dword_bcst[x[token / 3] + offset],
            1 => __dword_bcst[x[token / 3] + Stride + offset],
            _ => __dword_bcst[x[token / 3] + Stride * 2 + offset],
        };

        /// <summary>Clears totals, or loads them if the job continues.</summary>
        protected void Begin(AssemblerRegisterZMM[,] y)
        {
            var fresh = c.CreateLabel();
            foreach (var total in y)
                c.vpxord(total, total, total);
            c.cmp(Field(nameof(EmittedJob.Continues)), 0);
            c.je(fresh);
            Totals(y, load: true);
            c.Label(ref fresh);
            c.nop(); // for the label: the next instruction may have one of its own
        }

        /// <summary>Loads or stores totals.</summary>
        protected void Totals(AssemblerRegisterZMM[,] y, bool load)
        {
            for (var p = 0; p < panels; p++)
            {
                c.mov(rdi, Field(p == 0 ? nameof(EmittedJob.Total) : nameof(EmittedJob.Total2)));
                for (var t = 0; t < tokens; t++)
                    if (load)
                        c.vmovups(y[t, p], __zmmword_ptr[rdi + 64 * t]);
                    else
                        c.vmovups(__zmmword_ptr[rdi + 64 * t], y[t, p]);
            }
        }

        protected static AssemblerMemoryOperand Field(string name) => __qword_ptr[Job + (int)Marshal.OffsetOf<EmittedJob>(name)];
    }
}

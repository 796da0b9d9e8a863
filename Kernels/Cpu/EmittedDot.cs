using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Trimtab.Kernels.Cpu;

/// <summary>What an emitted kernel works on: four tokens and the same chunk of two panels, unpacked (see <see cref="IntegerDot{T}.Four"/>).</summary>
internal unsafe struct EmittedJob
{
    public byte* Unpacked;
    public byte* X0, X1, X2, X3;
    /// <summary>From a token's bytes to their block.</summary>
    public nint Block;
    /// <summary>Blocks of 32 columns.</summary>
    public nint Blocks;
    public float* Total, Total2;
    /// <summary>Whether the totals begin with what is in memory.</summary>
    public nint Continues;
}

/// <summary>
/// The inner kernel of integer dot products in machine code, for an instruction that the intrinsics leave out: 512-bit vpdpbusd, which
/// multiplies 64 pairs of bytes and adds them up in 32-bit lanes. The same integers and the same chain of multiply-adds as
/// <see cref="IntegerDot{T}.Four"/>, so the same bits. Memory is writable first and executable then, never both.
/// </summary>
internal sealed unsafe class EmittedDot
{
    private readonly delegate* unmanaged[SuppressGCTransition]<EmittedJob*, void> _centered8, _centered128, _centered32, _minimum;

    private EmittedDot(byte* code, ReadOnlySpan<int> starts)
    {
        _centered8 = At(starts[0]);
        _centered128 = At(starts[1]);
        _centered32 = At(starts[2]);
        _minimum = At(starts[3]);

        delegate* unmanaged[SuppressGCTransition]<EmittedJob*, void> At(int start) =>
            (delegate* unmanaged[SuppressGCTransition]<EmittedJob*, void>)(code + start);
    }

    /// <summary>The kernels of this process, or null: a processor without the instruction, a system without executable memory, or TRIMTAB_EMIT=0.</summary>
    public static EmittedDot? Instance { get; } = Environment.GetEnvironmentVariable("TRIMTAB_EMIT") == "0" ? null : Emit();

    /// <summary>Does the job for a form whose groups are bytes.</summary>
    public void Four<TForm>(EmittedJob* job) where TForm : struct, IIntegerForm
    {
        if (TForm.HasMinimum)
            _minimum(job);
        else if (TForm.Center == ActivationRows.Center8)
            _centered8(job);
        else if (TForm.Center == ActivationRows.Center128)
            _centered128(job);
        else
            _centered32(job);
    }

    private static EmittedDot? Emit()
    {
        // CPUID leaf 7, ECX bit 11: AVX512_VNNI.
        if (!Lanes512.IsSupported || RuntimeInformation.ProcessArchitecture != Architecture.X64 || (X86Base.CpuId(7, 0).Ecx & 1 << 11) == 0)
            return null;
        using var code = new MemoryStream();
        var starts = new int[4];
        foreach (var (i, (center, halves)) in new[] { (ActivationRows.Center8, 1), (ActivationRows.Center128, 1), (ActivationRows.Center32, 2), (0, 1) }.Index())
        {
            while (code.Length % 64 != 0)
                code.WriteByte(0xCC);
            starts[i] = (int)code.Length;
            var c = new Assembler(64);
            Kernel(c, center, halves);
            c.Assemble(new StreamCodeWriter(code), (ulong)starts[i]); // jumps are relative: the address does not matter
        }
        var memory = ExecutableMemory.Create(code.GetBuffer().AsSpan(0, (int)code.Length));
        return memory is null ? null : new EmittedDot(memory, starts);
    }

    /// <summary>One kernel. Registers are those that neither System V nor Windows wants back, but for one.</summary>
    /// <param name="c">Receives it.</param>
    /// <param name="center">Where a block has what centers the sums; 0: groups have minimums.</param>
    /// <param name="halves">Groups in a block of 32 columns: 1 or 2.</param>
    private static void Kernel(Assembler c, int center, int halves)
    {
        const int Second = IntegerDot<Lanes512>.UnpackedBytes;
        AssemblerRegisterZMM[] y = [zmm16, zmm17, zmm18, zmm19], z = [zmm20, zmm21, zmm22, zmm23];
        AssemblerRegisterZMM[] r = [zmm24, zmm25, zmm26, zmm27], s = [zmm28, zmm29, zmm30, zmm31];
        AssemblerRegisterZMM w = zmm0, w2 = zmm1;
        AssemblerRegister64[] x = [r8, r9, r10, r11];
        AssemblerRegister64 job = rax, unpacked = rdx, block = rcx, count = rbx;
        Label loop = c.CreateLabel(), fresh = c.CreateLabel();

        c.push(rbx);
        c.mov(job, OperatingSystem.IsWindows() ? rcx : rdi);
        c.mov(unpacked, Field(nameof(EmittedJob.Unpacked)));
        for (var t = 0; t < 4; t++)
        {
            c.mov(x[t], Field("X" + t));
            c.vpxord(y[t], y[t], y[t]);
            c.vpxord(z[t], z[t], z[t]);
        }
        c.cmp(Field(nameof(EmittedJob.Continues)), 0);
        c.je(fresh);
        Totals(load: true);
        c.Label(ref fresh);
        c.mov(block, Field(nameof(EmittedJob.Block)));
        c.mov(count, Field(nameof(EmittedJob.Blocks)));
        c.Label(ref loop);
        for (var half = 0; half < halves; half++)
            Group(half);
        for (var t = 0; t < 4; t++)
            c.add(x[t], ActivationRows.Block);
        c.dec(count);
        c.jne(loop);
        Totals(load: false);
        c.vzeroupper();
        c.pop(rbx);
        c.ret();

        void Group(int half)
        {
            for (var t = 0; t < 4; t++)
                if (center == 0)
                {
                    c.vpxord(r[t], r[t], r[t]);
                    c.vpxord(s[t], s[t], s[t]);
                }
                else
                {
                    c.vpbroadcastd(r[t], __dword_ptr[x[t] + block + (center + 4 * half)]);
                    c.vmovdqa32(s[t], r[t]);
                }
            var vectors = 8 / halves;
            for (var v = 0; v < vectors; v++)
            {
                c.vmovups(w, __zmmword_ptr[unpacked + 64 * v]);
                c.vmovups(w2, __zmmword_ptr[unpacked + (Second + 64 * v)]);
                for (var t = 0; t < 4; t++)
                {
                    var b = t % 2 == 0 ? zmm2 : zmm3;
                    c.vpbroadcastd(b, __dword_ptr[x[t] + (4 * v + 16 * half)]);
                    c.vpdpbusd(r[t], w, b);
                    c.vpdpbusd(s[t], w2, b);
                }
            }
            c.vmovups(w, __zmmword_ptr[unpacked + 64 * vectors]);
            c.vmovups(w2, __zmmword_ptr[unpacked + (Second + 64 * vectors)]);
            for (var t = 0; t < 4; t++)
            {
                c.vcvtdq2ps(r[t], r[t]);
                c.vmulps(zmm2, w, __dword_bcst[x[t] + block]);
                c.vfmadd231ps(y[t], r[t], zmm2);
                c.vcvtdq2ps(s[t], s[t]);
                c.vmulps(zmm3, w2, __dword_bcst[x[t] + block]);
                c.vfmadd231ps(z[t], s[t], zmm3);
            }
            var bytes = 64 * vectors + 64;
            if (center == 0)
            {
                c.vmovups(w, __zmmword_ptr[unpacked + bytes]);
                c.vmovups(w2, __zmmword_ptr[unpacked + (Second + bytes)]);
                for (var t = 0; t < 4; t++)
                {
                    c.vfmadd231ps(y[t], w, __dword_bcst[x[t] + block + ActivationRows.ScaledSum]);
                    c.vfmadd231ps(z[t], w2, __dword_bcst[x[t] + block + ActivationRows.ScaledSum]);
                }
                bytes += 64;
            }
            c.add(unpacked, bytes);
        }

        void Totals(bool load)
        {
            foreach (var (field, registers) in new[] { (nameof(EmittedJob.Total), y), (nameof(EmittedJob.Total2), z) })
            {
                c.mov(rcx, Field(field));
                for (var t = 0; t < 4; t++)
                    if (load)
                        c.vmovups(registers[t], __zmmword_ptr[rcx + 64 * t]);
                    else
                        c.vmovups(__zmmword_ptr[rcx + 64 * t], registers[t]);
            }
        }

        AssemblerMemoryOperand Field(string name) => __qword_ptr[job + (int)Marshal.OffsetOf<EmittedJob>(name)];
    }
}

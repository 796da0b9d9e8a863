using System.Text;
using Trimtab.Kernels.Cuda;
using static Trimtab.Kernels.Cuda.Driver;

namespace Trimtab.Tests.Cuda;

/// <summary>What the emulated device finds: each of these kernels is wrong in one way, which a GPU might let pass.</summary>
public unsafe class EmulatorTests
{
    private CudaStream _stream = null!;

    [OneTimeSetUp]
    public void Open()
    {
        EmulatedCuda.Require();
        if (EmulatedCuda.IsReal)
            Assert.Ignore("these kernels are wrong on purpose");
        cuInit(0).Check("cuInit");
        cuDevicePrimaryCtxRetain(out var context, 0).Check("retain");
        cuCtxSetCurrent(context).Check("current");
        _stream = CudaStream.Create();
    }

    [OneTimeTearDown]
    public void Close() => _stream?.Dispose();

    private struct Parameters
    {
        public nint Data;
        public int Count;
    }

    /// <summary>Runs a kernel over floats and returns what the wait answers and the floats.</summary>
    private (string? Error, float[] Data) Run(string body, int count = 64, int threads = 64, int blocks = 1, int shared = 0, Action<nint>? between = null,
        string kernelMacro = "KERNEL", string architecture = "sm_90a", bool dependent = false)
    {
        var source = CudaSources.Text("rows.cu") + $"\nstruct P {{ float* data; i32 count; }};\n{kernelMacro}(test, P, 1024)\n{{\n{body}\n}}\n";
        var image = new CudaCompiler(architecture, Path.Combine(EmulatedCuda.Folder, "kernels")).Compile("test.cu", source);
        nint module;
        fixed (byte* p = image)
            cuModuleLoadData(out module, p).Check("load");
        cuModuleGetFunction(out var kernel, module, "test").Check("get");
        cuMemAllocAsync(out var data, (nuint)(4 * count), _stream.Value).Check("allocate");
        cuMemsetD8Async(data, 0, (nuint)(4 * count), _stream.Value).Check("set");
        var parameters = new Parameters { Data = data, Count = count };
        nuint size = 16;
        var extra = stackalloc nint[] { 1, (nint)(&parameters), 2, (nint)(&size), 0 };
        var config = new CUlaunchConfig { gridDimX = (uint)blocks, gridDimY = 1, gridDimZ = 1, blockDimX = (uint)threads, blockDimY = 1, blockDimZ = 1, sharedMemBytes = (uint)shared, hStream = _stream.Value };
        var attribute = new CUlaunchAttribute { id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, value = 1 };
        (config.attrs, config.numAttrs) = dependent ? ((nint)(&attribute), 1u) : (0, 0);
        between?.Invoke(data);
        cuLaunchKernelEx(&config, kernel, null, extra).Check("launch");
        parameters = default; // they were taken at the launch
        var values = new float[count];
        string? error = null;
        try
        {
            cuStreamSynchronize(_stream.Value).Check("wait");
            fixed (float* p = values)
                if (between is null)
                    cuMemcpyDtoHAsync(p, data, (nuint)(4 * count), _stream.Value).Check("copy");
        }
        catch (CudaException e)
        {
            error = e.Message;
        }
        cuModuleUnload(module).Check("unload");
        if (between is null)
            cuMemFreeAsync(data, _stream.Value).Check("free");
        return (error, values);
    }

    [Test]
    public void Threads_meet_at_barriers_and_exchange_in_warps()
    {
        var (error, data) = Run("""
            SHARED(float, s, 64);
            s[threadIdx.x] = threadIdx.x;
            __syncthreads();
            float v = s[63 - threadIdx.x];
            p.data[threadIdx.x] = warp_sum(v) + 1000 * __shfl_sync(0xffffffffu, v, 3);
            """);
        Assert.That(error, Is.Null);
        Assert.That(data[0], Is.EqualTo(Enumerable.Range(32, 32).Sum() + 60_000));
        Assert.That(data[63], Is.EqualTo(Enumerable.Range(0, 32).Sum() + 28_000));
    }

    [TestCase("p.data[threadIdx.x + 1] = 1;", "256 bytes from the start of an allocation of 256 bytes")]
    [TestCase("p.data[0] = p.data[threadIdx.x + 600];", "access to")]
    [TestCase("p.data[0] = ((float*)0)[threadIdx.x];", "where nothing was allocated")]
    public void Accesses_outside_allocations_are_found(string body, string expected)
        => Assert.That(Run(body).Error, Does.Contain("CUDA_ERROR_ILLEGAL_ADDRESS").And.Contain(expected).And.Contain("kernel test, block (0, 0, 0), thread ("));

    [TestCase("SHARED(float, s, 64); s[threadIdx.x + 1] = 1;")]
    [TestCase("DYNAMIC_SHARED(s); ((float*)s)[threadIdx.x + 1] = 1;")]
    public void Accesses_outside_shared_arrays_are_found(string body)
        => Assert.That(Run(body, shared: 256).Error, Does.Contain("256 bytes past the start of a shared array of 256 bytes"));

    [Test]
    public void Shared_memory_is_not_a_number_until_it_is_written()
    {
        var (error, data) = Run("SHARED(float, s, 64); p.data[threadIdx.x] = s[threadIdx.x];");
        Assert.That(error, Is.Null);
        Assert.That(data, Is.All.NaN);
    }

    [Test]
    public void A_missing_barrier_meets_what_was_not_written_in_one_of_two_blocks()
    {
        var (error, data) = Run("SHARED(float, s, 64); s[threadIdx.x] = 1; p.data[blockIdx.x * 64 + threadIdx.x] = s[63 - threadIdx.x];", 128, 64, 2);
        Assert.That(error, Is.Null);
        Assert.That(data.Count(float.IsNaN), Is.GreaterThan(0));
    }

    [TestCase("if (threadIdx.x < 10) __syncthreads();", "divergent barrier")]
    [TestCase("if (threadIdx.x == 5) return; __syncthreads();", "divergent barrier")]
    [TestCase("if (threadIdx.x < 32) __syncthreads();\nelse\n__syncthreads();", "divergent barrier")]
    [TestCase("if (threadIdx.x != 7) p.data[threadIdx.x] = warp_sum(1);", "divergent warp operation")]
    [TestCase("p.data[0] = __shfl_xor_sync(0xffffu, 1.0f, 1);", "lanes 0000ffff")]
    public void Barriers_and_warp_operations_that_not_all_reach_are_found(string body, string expected) => Assert.That(Run(body).Error, Does.Contain(expected));

    [TestCase("uint4 v = load16(p.data + 1); p.data[0] = v.x;")]
    [TestCase("SHARED(float, s, 64); cp_async16(s + 1, p.data); cp_async_wait<0>();")]
    [TestCase("SHARED(float, s, 64); u32 r[4]; ldmatrix_x4(r, s + 1);")]
    public void Vectors_that_are_not_aligned_are_found(string body) => Assert.That(Run(body, threads: 32).Error, Does.Contain("misaligned"));

    [Test]
    public void Copies_to_shared_memory_arrive_when_they_are_waited_for()
    {
        const string Body = "SHARED(float, s, 64); if (threadIdx.x < 16) cp_async16(s + 4 * threadIdx.x, p.data + 4 * threadIdx.x);\ncp_async_commit();\nWAIT\n__syncthreads();\nfloat v = s[threadIdx.x];\n__syncthreads();\np.data[threadIdx.x] = v + 1;";
        Assert.That(Run(Body.Replace("WAIT", "cp_async_wait<0>();", StringComparison.Ordinal)).Data, Is.All.EqualTo(1));
        Assert.That(Run(Body.Replace("WAIT", "cp_async_wait<1>();", StringComparison.Ordinal)).Data, Is.All.NaN);
        Assert.That(Run(Body.Replace("WAIT", "", StringComparison.Ordinal)).Data, Is.All.NaN);
    }

    /// <summary>Where the kernel before may still run, nothing of device memory is touched but by prefetch, and every thread waits.</summary>
    [TestCase("float v = p.data[threadIdx.x];\ndependency_wait();\np.data[threadIdx.x] = v + 1;", "before dependency_wait(), 0 bytes from the start of an allocation of 256 bytes")]
    [TestCase("uint4 v = load16(p.data);\ndependency_wait();\np.data[threadIdx.x] = v.x;", "before dependency_wait(), 0 bytes")]
    [TestCase("p.data[threadIdx.x] = 1;\ndependency_wait();", "before dependency_wait(), 0 bytes")]
    [TestCase("if (blockIdx.x == 1)\nreport((Status*)p.data, 1, 2, 3);\ndependency_wait();", "block (1, 0, 0), thread (63, 0, 0): access to")]
    [TestCase("SHARED(float, s, 64); cp_async16(s, p.data);\ncp_async_wait<0>();\ndependency_wait();", "a copy to shared memory before dependency_wait()")]
    [TestCase("", "ends without dependency_wait()")]
    [TestCase("if (threadIdx.x >= 63)\nreturn;\ndependency_wait();\np.data[threadIdx.x] = 1;", "thread (63, 0, 0): the kernel ends without dependency_wait()")]
    [TestCase("prefetch(p.data + 60, 32);\ndependency_wait();", "a prefetch of 32 bytes")]
    public void What_a_kernel_does_before_the_one_before_it_has_ended_is_found(string body, string expected)
        => Assert.That(Run(body, blocks: 2, kernelMacro: "KERNEL_EARLY", dependent: true).Error, Does.Contain("CUDA_ERROR_ILLEGAL_ADDRESS").And.Contain(expected));

    [Test]
    public void A_kernel_waits_first_or_where_it_says([Values] bool early, [Values] bool dependent)
    {
        var before = EmulatedCuda.DependentLaunches;
        var wait = early ? "prefetch(p.data, 256);\ndependency_wait();\n" : "";
        var (error, data) = Run($"SHARED(float, s, 64); s[threadIdx.x] = 1; __syncthreads();\n{wait}p.data[threadIdx.x] += s[63 - threadIdx.x];", kernelMacro: early ? "KERNEL_EARLY" : "KERNEL", dependent: dependent);
        Assert.That((error, data.Distinct().Single()), Is.EqualTo(((string?)null, 1f))); // what comes before the wait is run twice, the rest once
        Assert.That(EmulatedCuda.DependentLaunches - before, Is.EqualTo(dependent ? 1 : 0));
    }

    /// <summary>For less than compute capability 9.0 there is no wait, and memory is used at once.</summary>
    [Test]
    public void Machine_code_that_does_not_wait_is_not_launched_early()
    {
        Assert.That(Run("p.data[threadIdx.x] = 1;", kernelMacro: "KERNEL_EARLY", architecture: "sm_80").Data, Is.All.EqualTo(1));
        Assert.That(() => Run("p.data[threadIdx.x] = 1;", architecture: "sm_80", dependent: true), Throws.TypeOf<CudaException>().With.Message.Contains("CUDA_ERROR_INVALID_VALUE"));
    }

    [Test]
    public void Memory_that_was_freed_is_not_used()
        => Assert.That(Run("p.data[0] = 1;", between: data => cuMemFreeAsync(data, _stream.Value).Check("free")).Error, Does.Contain("that was freed"));

    [Test]
    public void Too_many_threads_and_too_much_shared_memory_are_refused()
    {
        Assert.That(() => Run("", threads: 1025), Throws.TypeOf<CudaException>().With.Message.Contains("CUDA_ERROR_INVALID_VALUE"));
        Assert.That(() => Run("", shared: (48 << 10) + 1), Throws.TypeOf<CudaException>().With.Message.Contains("CUDA_ERROR_INVALID_VALUE"));
    }

    [Test]
    public void Pinned_memory_is_read_when_the_copys_turn_comes_and_other_memory_at_once()
    {
        cuMemAllocAsync(out var data, 8, _stream.Value).Check("allocate");
        using var pinned = PinnedMemory.Allocate(4);
        var ordinary = stackalloc float[1];
        *(float*)pinned.Value = ordinary[0] = 1;
        cuMemcpyHtoDAsync(data, (void*)pinned.Value, 4, _stream.Value).Check("copy");
        cuMemcpyHtoDAsync(data + 4, ordinary, 4, _stream.Value).Check("copy");
        *(float*)pinned.Value = ordinary[0] = 2;
        var back = stackalloc float[2];
        cuMemcpyDtoHAsync(back, data, 8, _stream.Value).Check("copy");
        Assert.That((back[0], back[1]), Is.EqualTo((2f, 1f)));
        cuMemFreeAsync(data, _stream.Value).Check("free");
    }

    /// <summary>One warp's tensor-core product of small integers against the definition: fragments lie where PTX says.</summary>
    [Test]
    public void Tensor_cores_multiply_what_ldmatrix_loads()
    {
        var (error, data) = Run("""
            SHARED(bf16, a, 16 * 16);
            SHARED(bf16, b, 8 * 16);
            for (i32 i = threadIdx.x; i < 256; i += 32) a[i] = to_bf16(i % 7 - 3);
            for (i32 i = threadIdx.x; i < 128; i += 32) b[i] = to_bf16(i % 5 - 2);
            __syncthreads();
            u32 x[4], y[4];
            float d[4] = { 0, 0, 0, 100 };
            ldmatrix_x4(x, a + threadIdx.x % 16 * 16 + threadIdx.x / 16 * 8);
            ldmatrix_x4(y, b + threadIdx.x % 8 * 16 + threadIdx.x / 8 % 2 * 8);
            mma_bf16(d, x, y);
            for (i32 e = 0; e < 4; e++)
                p.data[(threadIdx.x / 4 + e / 2 * 8) * 8 + threadIdx.x % 4 * 2 + e % 2] = d[e];
            """, 128, 32);
        Assert.That(error, Is.Null);
        for (var m = 0; m < 16; m++)
            for (var n = 0; n < 8; n++)
            {
                var sum = m >= 8 && n % 2 == 1 ? 100 : 0;
                for (var k = 0; k < 16; k++)
                    sum += ((m * 16 + k) % 7 - 3) * ((n * 16 + k) % 5 - 2);
                Assert.That(data[m * 8 + n], Is.EqualTo(sum), $"({m}, {n})");
            }
    }

    [Test]
    public void Every_source_has_text_and_every_include_is_put_in_place()
    {
        foreach (var file in CudaSources.Files)
            Assert.That(CudaSources.Text(file), Does.Not.Contain("#include").And.Contain("KERNEL("), file);
        Assert.That(Encoding.UTF8.GetByteCount(CudaSources.Text("linear.cu")), Is.GreaterThan(1000));
    }
}

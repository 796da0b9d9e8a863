using Trimtab.Kernels;
using Trimtab.Kernels.Cuda;

namespace Trimtab.Tests.Cuda;

public class LibrariesTests
{
    [Test]
    public void The_platforms_names_are_tried_of_both_versions()
    {
        static string? None(string name) => null;
        Assert.That(CudaLibraries.Candidates("cuda", false, None), Is.EqualTo(new[] { "libcuda.so.1", "libcuda.so" }));
        Assert.That(CudaLibraries.Candidates("cuda", true, None), Is.EqualTo(new[] { "nvcuda.dll" }));
        Assert.That(CudaLibraries.Candidates("nvrtc", false, None), Is.SupersetOf(new[] { "libnvrtc.so.13", "libnvrtc.so.12" }));
        Assert.That(CudaLibraries.Candidates("nvrtc", true, n => n == "CUDA_PATH" ? "kit" : null), Is.SupersetOf(new[] { "nvrtc64_130_0.dll", "nvrtc64_120_0.dll", Path.Combine("kit", "bin", "nvrtc64_120_0.dll") }));
        Assert.That(CudaLibraries.Candidates("cublasLt", false, None), Is.SupersetOf(new[] { "libcublasLt.so.13", "libcublasLt.so.12" }));
        Assert.That(CudaLibraries.Candidates("cublasLt", true, None), Is.EqualTo(new[] { "cublasLt64_13.dll", "cublasLt64_12.dll" }));
        Assert.That(CudaLibraries.Candidates("nvrtc", false, n => n == CudaLibraries.NvrtcVariable ? "/a/b.so" : null), Is.EqualTo(new[] { "/a/b.so" }));
    }

    [Test]
    public void Messages_say_what_is_missing()
    {
        Assert.That(CudaLibraries.Missing("cuda"), Does.Contain("no CUDA driver was found").And.Contain("no NVIDIA GPU"));
        Assert.That(CudaLibraries.Missing("nvrtc"), Does.Contain("no NVRTC was found").And.Contain(CudaLibraries.NvrtcVariable));
    }

    [Test]
    public void A_device_says_what_multiplies_long_prompts()
    {
        EmulatedCuda.Require();
        Assert.That(EmulatedCuda.Get(blocking: true, cublas: true).Products, Does.StartWith("cuBLASLt "));
        Assert.That(EmulatedCuda.Get(blocking: true).Products, Is.EqualTo("kernels of Trimtab"));
    }

    [Test]
    public void Activations_other_than_two_kinds_are_refused()
        => Assert.That(() => new CudaDevice(new() { ActivationType = DType.F16 }), Throws.TypeOf<NotSupportedException>());

    [Test]
    public void A_gpu_that_is_not_there_is_named()
    {
        EmulatedCuda.Require();
        Assert.That(() => new CudaDevice(new() { Ordinal = 77 }), Throws.TypeOf<CudaException>().With.Message.Contains("no GPU 77"));
    }
}

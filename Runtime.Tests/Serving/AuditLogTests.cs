using Trimtab.Server.Serving;

namespace Trimtab.Tests.Serving;

public class AuditLogTests
{
    /// <summary>A file on a disk that is full for a while: a write leaves half a line and fails.</summary>
    private sealed class FullDisk(string path) : FileStream(path, FileMode.Append, FileAccess.Write, FileShare.Read, bufferSize: 0)
    {
        public bool IsFull { get; set; }

        public override void Write(ReadOnlySpan<byte> buffer)
        {
            base.Write(IsFull ? buffer[..(buffer.Length / 2)] : buffer);
            if (IsFull)
                throw new IOException("no space left on device");
        }
    }

    [Test]
    public void A_write_that_fails_leaves_the_chain_whole()
    {
        var path = Path.Combine(Path.GetTempPath(), $"trimtab-audit-{Guid.NewGuid():N}.jsonl");
        try
        {
            var disk = new FullDisk(path);
            using (var log = new AuditLog(disk))
            {
                log.Append("first", _ => { });
                disk.IsFull = true;
                Assert.That(() => log.Append("lost", _ => { }), Throws.InstanceOf<IOException>());
                disk.IsFull = false;
                log.Append("second", writer => writer.WriteNumber("n", 2));
            }
            Assert.That(AuditLog.Verify(path).Lines, Is.EqualTo(2));
            using (var log = AuditLog.Open(path))
                log.Append("third", _ => { });
            Assert.That(AuditLog.Verify(path).Lines, Is.EqualTo(3));
            Assert.That(File.ReadAllText(path), Does.Not.Contain("lost"));
        }
        finally
        {
            File.Delete(path);
        }
    }
}

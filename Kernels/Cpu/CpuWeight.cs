namespace Trimtab.Kernels.Cpu;

/// <summary>16 weight rows, or what is left of them at the end of a part.</summary>
/// <param name="Data">First chunk.</param>
/// <param name="Form">Storage form.</param>
/// <param name="First">First row.</param>
/// <param name="Rows">Rows that there are; the lanes after them hold zeros.</param>
internal readonly unsafe record struct Panel(nint Data, DType Form, int First, int Rows);

/// <summary>A weight matrix as panels of 16 rows, each part in its own form.</summary>
internal sealed unsafe class CpuWeight : Weight
{
    private readonly CpuStorage _storage;
    private readonly long _forms;

    /// <summary>Packs parts, panels divided among the workers; each part is read once.</summary>
    public CpuWeight(WorkerPool pool, ReadOnlySpan<WeightData> parts)
    {
        Columns = parts[0].Columns;
        long bytes = 0;
        var panels = 0;
        foreach (var part in parts)
        {
            var count = (part.Rows + Panels.Rows - 1) / Panels.Rows;
            bytes = checked(bytes + count * LinearForms.PanelBytes(part.Type, Columns));
            panels = checked(panels + count);
            Rows = checked(Rows + part.Rows);
            _forms |= 1L << (int)part.Type;
            IsQuantized |= part.Type.IsQuantized();
        }
        _storage = new CpuStorage(bytes);
        Panel = new Panel[panels];
        var data = _storage.Pointer;
        int index = 0, first = 0;
        foreach (var part in parts)
        {
            var work = new PackWork(part, Panel, index);
            var size = LinearForms.PanelBytes(part.Type, Columns);
            for (var row = 0; row < part.Rows; row += Panels.Rows, data += size)
                Panel[index++] = new Panel((nint)data, part.Type, first + row, Math.Min(Panels.Rows, part.Rows - row));
            first += part.Rows;
            pool.Run(index - work.First, work);
        }
        IsGated = Halves();
    }

    public override int Rows { get; }

    public override int Columns { get; }

    public override long Bytes => _storage.Bytes;

    /// <summary>The panels, by their first rows.</summary>
    public Panel[] Panel { get; }

    /// <summary>Whether panel i of the first half of the rows and panel i of the second hold rows that belong together as gate and value.</summary>
    public bool IsGated { get; }

    /// <summary>Whether some part is of a form.</summary>
    public bool Has(DType form) => (_forms & 1L << (int)form) != 0;

    /// <summary>Whether some part is quantised.</summary>
    public bool IsQuantized { get; }

    /// <summary>Whether the memory has been given back.</summary>
    public bool IsDisposed => _storage.Pointer is null;

    /// <summary>The panel that holds a row.</summary>
    public ref readonly Panel Of(int row)
    {
        int low = 0, high = Panel.Length - 1;
        while (low < high)
        {
            var middle = (low + high + 1) / 2;
            if (Panel[middle].First <= row)
                low = middle;
            else
                high = middle - 1;
        }
        return ref Panel[low];
    }

    protected override void Dispose(bool disposing) => _storage.Dispose();

    private bool Halves()
    {
        if (Rows % 2 != 0 || Panel.Length % 2 != 0)
            return false;
        var half = Panel.Length / 2;
        for (var i = 0; i < half; i++)
            if (Panel[i].First + Rows / 2 != Panel[half + i].First || Panel[i].Rows != Panel[half + i].Rows)
                return false;
        return true;
    }

    private readonly struct PackWork(WeightData part, Panel[] panels, int first) : IWork
    {
        public int First => first;

        public void Run(int begin, int end, int worker)
        {
            var rows = stackalloc byte*[Panels.Rows];
            var size = part.Type.RowBytes(part.Columns);
            for (var p = begin; p < end; p++)
            {
                ref readonly var panel = ref panels[first + p];
                for (var r = 0; r < Panels.Rows; r++)
                {
                    var row = p * Panels.Rows + r;
                    rows[r] = r < panel.Rows ? (byte*)part.Data + (part.RowOrder is { } order ? order[row] : row) * size : null;
                }
                LinearForms.Pack(panel, part.Columns, rows);
            }
        }
    }
}

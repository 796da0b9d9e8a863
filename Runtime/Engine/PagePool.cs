using Trimtab.Model;

namespace Trimtab.Engine;

/// <summary>
/// What decides the keys and values at a position, given those before it: the token or image row, and the edit that it was steered by. Positions that
/// are not steered are the same for every vector and every alpha.
/// </summary>
/// <param name="What">A token id, or −1 − (the image's number · 2²⁰ + row).</param>
/// <param name="Steering">Number of the edit, 0 for none.</param>
internal readonly record struct PositionKey(long What, long Steering);

/// <summary>A page of the KV cache, and, once it is published, what lies in it and before it.</summary>
internal sealed class Page
{
    private readonly PositionKey[] _keys = new PositionKey[KvCache.PageSize];
    private int _count;

    /// <param name="number">In the KV cache; −1 for a root, which has no contents.</param>
    public Page(int number) => (Number, Idle) = (number, new(this));

    /// <summary>In the KV cache.</summary>
    public int Number { get; }

    /// <summary>Sequences that hold it.</summary>
    public int Users { get; set; }

    /// <summary>The page of the positions before; null while it is not published.</summary>
    public Page? Parent { get; private set; }

    /// <summary>The first published page that goes on from this one; the others are its siblings.</summary>
    public Page? Child { get; private set; }

    /// <summary>The next page with the same parent.</summary>
    public Page? Sibling { get; private set; }

    /// <summary>What lies in it, from its first position on; fewer than a page only where nothing follows.</summary>
    public ReadOnlySpan<PositionKey> Keys => _keys.AsSpan(0, _count);

    /// <summary>Its place among the pages that no sequence holds.</summary>
    public LinkedListNode<Page> Idle { get; }

    /// <summary>Puts it behind a parent.</summary>
    public void Attach(Page parent, ReadOnlySpan<PositionKey> keys)
    {
        keys.CopyTo(_keys);
        (_count, Parent, Sibling, parent.Child) = (keys.Length, parent, parent.Child, this);
    }

    /// <summary>Takes it from its parent.</summary>
    public void Detach()
    {
        if (Parent!.Child == this)
            Parent.Child = Sibling;
        else
        {
            var before = Parent.Child!;
            while (before.Sibling != this)
                before = before.Sibling!;
            before.Sibling = Sibling;
        }
        (_count, Parent, Sibling) = (0, null, null);
    }
}

/// <summary>
/// The pages of a KV cache: free ones, those that sequences hold, and those that are kept because a later prompt may begin with what is in them. Pages are
/// found by their contents, compared position by position: two texts, images or edits that differ never share.
/// Not thread-safe: the engine's own.
/// </summary>
internal sealed class PagePool
{
    private readonly Stack<Page> _free;
    private readonly LinkedList<Page> _idle = new(); // longest unused first; of a chain the last page first
    private readonly Dictionary<long, Page> _roots = [];

    /// <param name="pages">Pages of the cache.</param>
    public PagePool(int pages)
    {
        Pages = pages;
        _free = new(Enumerable.Range(0, pages).Reverse().Select(number => new Page(number)));
    }

    /// <summary>All pages.</summary>
    public int Pages { get; }

    /// <summary>Pages that hold nothing.</summary>
    public int Free => _free.Count;

    /// <summary>Pages that are kept for later prompts, and given up where pages are needed.</summary>
    public int Idle => _idle.Count;

    /// <summary>Takes a page to write to, giving up the longest unused one where none is free; null where all are held.</summary>
    public Page? Take()
    {
        if (_free.Count == 0)
            Evict();
        if (!_free.TryPop(out var page))
            return null;
        page.Users = 1;
        return page;
    }

    /// <summary>Ends one use. A published page stays until its place is needed; hand back a chain's last page first.</summary>
    public void Return(Page page)
    {
        if (--page.Users > 0)
            return;
        if (page.Parent is null)
            _free.Push(page);
        else
            _idle.AddLast(page.Idle);
    }

    /// <summary>Finds the whole pages that hold the first of some keys, and holds them.</summary>
    /// <param name="root">Keys under different roots never match (see <see cref="Publish"/>).</param>
    /// <param name="keys">What a sequence has at its positions.</param>
    /// <param name="found">Receives the pages in order.</param>
    /// <param name="partial">A page of which the first positions fit what follows, not held; or null.</param>
    /// <param name="shared">How many positions of it.</param>
    public void Match(long root, ReadOnlySpan<PositionKey> keys, List<Page> found, out Page? partial, out int shared)
    {
        (partial, shared) = (null, 0);
        if (!_roots.TryGetValue(root, out var at))
            return;
        for (; keys.Length > 0; keys = keys[KvCache.PageSize..])
        {
            for (var child = at.Child; child is not null; child = child.Sibling)
            {
                var common = keys.CommonPrefixLength(child.Keys);
                if (common > shared)
                    (partial, shared) = (child, common);
            }
            if (shared < KvCache.PageSize)
                return;
            at = partial!;
            (partial, shared) = (null, 0);
            Hold(at);
            found.Add(at);
        }
    }

    /// <summary>Adds a use to a page that <see cref="Match"/> found.</summary>
    public void Hold(Page page)
    {
        if (page.Users++ == 0)
            _idle.Remove(page.Idle);
    }

    /// <summary>Says what lies in a page that its one holder has written. Where a page with the same is there already, that one is held instead.</summary>
    /// <param name="root">What else decides keys and values: positions of prompts of different length, where the model's rotation depends on it.</param>
    /// <param name="parent">The published page before, or null for the first.</param>
    /// <param name="page">The page.</param>
    /// <param name="keys">What lies in it, at least one position; fewer than a page if nothing will be added.</param>
    /// <returns>The page to use from now on.</returns>
    public Page Publish(long root, Page? parent, Page page, ReadOnlySpan<PositionKey> keys)
    {
        if (parent is null && !_roots.TryGetValue(root, out parent))
            _roots[root] = parent = new(-1);
        for (Page? sibling = parent.Child, next; sibling is not null; sibling = next)
        {
            next = sibling.Sibling;
            var common = keys.CommonPrefixLength(sibling.Keys);
            if (common == keys.Length)
            {
                Hold(sibling);
                Return(page);
                return sibling;
            }
            // A page that holds less than this one serves nobody any more.
            if (common == sibling.Keys.Length && sibling.Users == 0)
                Forget(sibling);
        }
        page.Attach(parent, keys);
        return page;
    }

    /// <summary>Gives up everything that no sequence holds.</summary>
    public void Clear()
    {
        while (Evict())
        {
        }
    }

    /// <summary>Frees the longest unused page that nothing goes on from.</summary>
    private bool Evict()
    {
        for (var node = _idle.First; node is not null; node = node.Next)
        {
            if (node.Value.Child is not null)
                continue;
            Forget(node.Value);
            return true;
        }
        return false;
    }

    private void Forget(Page page)
    {
        page.Detach();
        _idle.Remove(page.Idle);
        _free.Push(page);
    }
}

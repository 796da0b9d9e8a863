using System.Diagnostics;
using System.Runtime.InteropServices;
using Trimtab.Kernels;
using Trimtab.Model;

namespace Trimtab.Engine;

// What a sequence holds: pages of the KV cache, image features, a steering slot. From admission to release.
public sealed partial class Engine
{
    private readonly List<Page> _found = [];
    private readonly List<(long Image, int Rows)> _missing = [];

    /// <summary>Moves waiting sequences to the running ones while slots, pages and feature rows last, first come first.</summary>
    private void Admit()
    {
        var (encodes, decoding) = (_counts.ImageEncodes, _running.Exists(sequence => !sequence.InPrefill));
        for (var node = _waiting.First; node is not null && _running.Count < _batch.MaxSequences;)
        {
            var (sequence, next) = (node.Value, node.Next);
            // Others wait for their next token: one new image a step.
            if (decoding && _counts.ImageEncodes > encodes && sequence.Prompt.Images.Count > 0)
                return;
            if (!sequence.IsLong && _network.Decoder.Rope.IsLong(sequence.Length))
            {
                sequence.IsLong = true;
                sequence.PositionKeys.Clear(); // its pages are others now
            }
            if (!IsLed(sequence))
            {
                if (!Admit(sequence, decoding))
                    return;
                _waiting.Remove(node);
            }
            node = next;
        }
    }

    /// <summary>
    /// Takes back those that have just outgrown LongRoPE's short angles: all of their positions turn otherwise from here on, so they begin again,
    /// as in transformers' generation.
    /// </summary>
    private void Restart()
    {
        for (var i = _running.Count - 1; i >= 0; i--)
        {
            var sequence = _running[i];
            if (sequence.IsLong || !_network.Decoder.Rope.IsLong(sequence.Length))
                continue;
            _running.RemoveAt(i);
            Release(sequence);
            _waiting.AddFirst(sequence);
        }
    }

    /// <summary>Whether one that runs is just computing what this one begins with: a page or more of waiting saves computing it twice.</summary>
    private bool IsLed(Sequence sequence)
    {
        if (!Shares(sequence))
            return false;
        var keys = Keys(sequence, sequence.Length - 1);
        foreach (var leader in _running)
        {
            if (leader.InPrefill && leader.Root == sequence.Root
                && Keys(leader, leader.Length).CommonPrefixLength(keys) - leader.Computed >= KvCache.PageSize)
                return true;
        }
        return false;
    }

    private bool Admit(Sequence sequence, bool decoding)
    {
        var (source, shared) = Match(sequence);
        var (needed, room) = (KvCache.PagesFor(sequence.Length) - _found.Count, _pool.Free + _pool.Idle);
        // Where there is one page, it cannot be both source and copy.
        if (source is { Users: 0 } && room < 2)
            (source, shared) = (null, 0);
        // Those that run may each want a page soon: one that comes must not make them give up theirs.
        var fits = _running.Count == 0 || room >= needed + _running.Count + (source is { Users: 0 } ? 1 : 0);
        if (!fits || !TakeFeatures(sequence, _found.Count * KvCache.PageSize + shared, decoding))
        {
            ReturnFound();
            return false;
        }
        foreach (var page in _found)
            Give(sequence, page);
        sequence.Published = _found.Count;
        sequence.Computed = _found.Count * KvCache.PageSize;
        _found.Clear();
        if (source is not null)
            Copy(sequence, source, shared);
        if (sequence.Options.Steering is { } steering)
            sequence.SteerSlot = _bank.Acquire(steering);
        // A step allocates nothing.
        var most = Math.Min(sequence.Limit, ContextLength);
        sequence.Tokens.EnsureCapacity(most - sequence.Prompt.Tokens.Length);
        sequence.Held.EnsureCapacity(KvCache.PagesFor(most));
        sequence.PageNumbers.EnsureCapacity(KvCache.PagesFor(most));
        sequence.PositionKeys.EnsureCapacity(most);
        _network.Decoder.Rope.Reserve(most);
        _network.Decoder.LocalRope?.Reserve(most);
        var at = _running.Count;
        while (at > 0 && _running[at - 1].Arrival > sequence.Arrival)
            at--;
        _running.Insert(at, sequence);
        if (sequence.PrefillStart > 0)
            return true; // it was here before, and gave up its place
        sequence.PrefillStart = Stopwatch.GetTimestamp();
        sequence.QueueTime = Stopwatch.GetElapsedTime(sequence.Submitted, sequence.PrefillStart);
        sequence.CachedTokens = sequence.Computed;
        if (sequence.Options is { Telemetry: not TelemetryDetail.None, Steering: { } observed })
            sequence.Telemetry = new(observed, _network.Spec.Text.Layers, sequence.Options.Telemetry == TelemetryDetail.Series);
        _counts = _counts with
        {
            PromptTokens = _counts.PromptTokens + sequence.Prompt.Tokens.Length,
            CachedPromptTokens = _counts.CachedPromptTokens + sequence.CachedTokens,
        };
        return true;
    }

    private void ReturnFound()
    {
        for (var i = _found.Count - 1; i >= 0; i--)
            _pool.Return(_found[i]);
        _found.Clear();
    }

    /// <summary>Whether it may begin with pages of others: a prompt whose every position is scored is computed whole.</summary>
    private bool Shares(Sequence sequence) => _options.PrefixCache && !sequence.Options.Score;

    /// <summary>
    /// Finds whole pages (in <see cref="_found"/>, held), and a page of which the first positions fit, published or just being written. The last position is
    /// computed in any case: it is what tokens are drawn from.
    /// </summary>
    private (Page? Source, int Shared) Match(Sequence sequence)
    {
        _found.Clear();
        if (!Shares(sequence))
            return default;
        var keys = Keys(sequence, sequence.Length - 1);
        _pool.Match(sequence.Root, keys, _found, out var source, out var shared);
        var whole = _found.Count * KvCache.PageSize;
        foreach (var other in _running)
        {
            if (other.Root != sequence.Root || other.Computed <= whole + shared)
                continue;
            var common = Math.Min(Keys(other, other.Computed).CommonPrefixLength(keys), whole + KvCache.PageSize) - whole;
            if (common > shared)
                (source, shared) = (other.Held[_found.Count], common);
        }
        return (source, shared);
    }

    /// <summary>Gives a sequence a page of its own with the first positions of another's.</summary>
    private void Copy(Sequence sequence, Page source, int shared)
    {
        _pool.Hold(source);
        var page = _pool.Take()!;
        _cache.CopyPage(source.Number, page.Number);
        Give(sequence, page);
        sequence.Computed += shared;
        _pool.Return(source);
    }

    private static void Give(Sequence sequence, Page page)
    {
        sequence.Held.Add(page);
        sequence.PageNumbers.Add(page.Number);
    }

    /// <summary>Gets pages for the first positions of a sequence, where need be from younger ones, which begin again later.</summary>
    /// <returns>Whether it has them; never false for the oldest.</returns>
    private bool Reserve(Sequence sequence, int positions)
    {
        while (sequence.Held.Count * KvCache.PageSize < positions)
        {
            if (_pool.Take() is { } page)
            {
                Give(sequence, page);
                continue;
            }
            var youngest = _running[^1];
            if (ReferenceEquals(youngest, sequence))
                return false;
            _running.RemoveAt(_running.Count - 1);
            Release(youngest);
            _waiting.AddFirst(youngest);
            _counts = _counts with { Preempted = _counts.Preempted + 1 };
        }
        return true;
    }

    /// <summary>Says what lies in the pages that are full, or at the end in all.</summary>
    private void Publish(Sequence sequence, bool all)
    {
        if (!_options.PrefixCache)
            return;
        for (int count; sequence.Published < sequence.Held.Count; sequence.Published++)
        {
            var (i, first) = (sequence.Published, sequence.Published * KvCache.PageSize);
            count = Math.Min(sequence.Computed - first, KvCache.PageSize);
            if (count <= 0 || (!all && count < KvCache.PageSize))
                return;
            var keys = Keys(sequence, first + count)[first..];
            var page = _pool.Publish(sequence.Root, i > 0 ? sequence.Held[i - 1] : null, sequence.Held[i], keys);
            (sequence.Held[i], sequence.PageNumbers[i]) = (page, page.Number);
        }
    }

    /// <summary>What lies at the first positions of a sequence.</summary>
    private ReadOnlySpan<PositionKey> Keys(Sequence sequence, int count)
    {
        var keys = sequence.PositionKeys;
        var (prompt, images) = (sequence.Prompt.Tokens, sequence.Prompt.Images);
        if (keys.Count == 0)
        {
            var group = _identities.Of(sequence.Options.CacheGroup);
            // Where the prompt's length says how later positions turn, only prompts of that length have the same pages.
            var byLength = _network.Spec.Text.Rope.Kind == RopeKind.Dynamic || _network.Spec.Vision is { TimeFactor: not 1 };
            sequence.Root = (group << 32) + (byLength ? prompt.Length : sequence.IsLong ? 1 : 0);
            sequence.Edit = _identities.Of(sequence.Options.Steering);
            sequence.ImageNumbers = images.Count == 0 ? [] : new long[images.Count]; // no query: its closure would be made in every call
            foreach (var token in prompt)
                keys.Add(new(token, 0));
            for (var i = 0; i < images.Count; i++)
            {
                sequence.ImageNumbers[i] = _identities.Of(images[i].Content, group);
                for (var row = 0; row < images[i].Rows; row++)
                    keys[images[i].Start + row] = new(-1 - ((sequence.ImageNumbers[i] << 20) + row), 0);
            }
            if (IsSteered(sequence, prompt.Length - 1))
                keys[^1] = keys[^1] with { Steering = sequence.Edit };
            // Where every position sees all of the prompt, and so the edit at its last, only the very same prompt has the same pages.
            if (_network.Spec.Text.SeesWholePrompts)
                sequence.Root = _identities.Of(ContentHash.Of(MemoryMarshal.Cast<PositionKey, float>(CollectionsMarshal.AsSpan(keys))), group);
        }
        for (var position = keys.Count; position < count; position++)
            keys.Add(new(sequence.Tokens[position - prompt.Length], IsSteered(sequence, position) ? sequence.Edit : 0));
        return CollectionsMarshal.AsSpan(keys)[..count];
    }

    /// <summary>Holds the features of the images that positions from the first one on read, encoding those that are not here.</summary>
    /// <param name="sequence">The sequence.</param>
    /// <param name="first">The first position.</param>
    /// <param name="singly">Whether to encode one of several at a time, for a later call to find it.</param>
    /// <returns>Whether all are held.</returns>
    private bool TakeFeatures(Sequence sequence, int first, bool singly)
    {
        var images = sequence.Prompt.Images;
        if (images.Count == 0)
            return true;
        Keys(sequence, 0); // numbers the images
        if (sequence.FeatureRows.Length == 0)
        {
            sequence.FeatureRows = new int[images.Count];
            Array.Fill(sequence.FeatureRows, -1);
        }
        _missing.Clear();
        var hits = 0;
        for (var i = 0; i < images.Count; i++)
        {
            if (images[i].Start + images[i].Rows <= first)
                continue;
            sequence.FeatureRows[i] = _features.Hold(sequence.ImageNumbers[i]);
            if (sequence.FeatureRows[i] >= 0)
                hits++;
            else if (!_missing.Exists(missing => missing.Image == sequence.ImageNumbers[i]))
                _missing.Add((sequence.ImageNumbers[i], images[i].Rows));
        }
        if (singly && _missing.Count > 1 && _missing.Sum(missing => missing.Rows) <= _features.FreeRows)
        {
            _missing.RemoveRange(1, _missing.Count - 1);
            if (_features.Take(_missing) is var at and >= 0)
            {
                Encode(sequence, at);
                _features.Return(_missing[0].Image);
                sequence.Encoded++;
            }
            ReturnFeatures(sequence, ContextLength);
            return false;
        }
        var row = _missing.Count == 0 ? 0 : _features.Take(_missing);
        if (row < 0)
        {
            ReturnFeatures(sequence, ContextLength);
            if (_running.Count > 0)
                return false;
            // Nobody holds any: what is here of its own images lies between the gaps that the others need.
            _features.Clear();
            return TakeFeatures(sequence, first, singly);
        }
        // Those that it had encoded for itself are no hits.
        (_counts, sequence.Encoded) = (_counts with { ImageHits = _counts.ImageHits + hits - Math.Min(hits, sequence.Encoded) }, 0);
        if (_missing.Count == 0)
            return true;
        var taken = new HashSet<long>();
        for (var i = 0; i < images.Count; i++)
        {
            var number = sequence.ImageNumbers[i];
            var which = _missing.FindIndex(missing => missing.Image == number);
            if (which < 0 || sequence.FeatureRows[i] >= 0 || images[i].Start + images[i].Rows <= first)
                continue;
            // It is held once already; the same image again needs another hold.
            sequence.FeatureRows[i] = taken.Add(number) ? row + _missing.Take(which).Sum(before => before.Rows) : _features.Hold(number);
        }
        Encode(sequence, row);
        return true;
    }

    private void Encode(Sequence sequence, int row)
    {
        var (start, vision) = (Stopwatch.GetTimestamp(), _network.Vision!);
        var added = new Tensor[vision.Spec.Deepstack.Length];
        for (int i = 0, n; i < _missing.Count; i += n)
        {
            // Images that are divided alike go together, so that their squares share passes.
            var first = Image(i);
            n = 1;
            while (i + n < _missing.Count && Image(i + n).Grid == first.Grid)
                n++;
            var pixels = first.Pixels;
            if (n > 1)
            {
                pixels = new float[n * first.Pixels.Length];
                for (var k = 0; k < n; k++)
                    Image(i + k).Pixels.CopyTo(pixels, k * first.Pixels.Length);
            }
            for (var level = 0; level < added.Length; level++)
                added[level] = _features.Rows(level + 1, row, n * first.Rows);
            vision.Forward(pixels, first.Grid, _features.Rows(0, row, n * first.Rows), added);
            row += n * first.Rows;
        }

        sequence.ImageTime += Stopwatch.GetElapsedTime(start);
        _counts = _counts with { ImageEncodes = _counts.ImageEncodes + _missing.Count, ImageSeconds = _counts.ImageSeconds + Seconds(start) };

        PromptImage Image(int missing) => sequence.Prompt.Images[Array.IndexOf(sequence.ImageNumbers, _missing[missing].Image)];
    }

    /// <summary>Hands back the features of images before a position.</summary>
    private void ReturnFeatures(Sequence sequence, int before)
    {
        var images = sequence.Prompt.Images;
        for (var i = 0; i < sequence.FeatureRows.Length; i++)
        {
            if (sequence.FeatureRows[i] < 0 || images[i].Start + images[i].Rows > before)
                continue;
            _features.Return(sequence.ImageNumbers[i]);
            sequence.FeatureRows[i] = -1;
        }
    }
}

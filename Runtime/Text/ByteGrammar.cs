using System.Collections;
using System.Text;

namespace Trimtab.Text;

/// <summary>What bytes may follow one another: sequences, choices, repetitions, and rules that may name themselves.</summary>
internal abstract record BytePattern
{
    /// <summary>One byte of a set.</summary>
    public sealed record Set(BitArray Bytes) : BytePattern
    {
        /// <summary>Any printable ASCII character (and DEL) but these.</summary>
        public static Set Except(string characters)
        {
            var bytes = new BitArray(256);
            for (var value = 0x20; value < 0x80; value++)
                bytes[value] = !characters.Contains((char)value);
            return new(bytes);
        }
    }

    /// <summary>One after another; none matches nothing.</summary>
    public sealed record Sequence(params IReadOnlyList<BytePattern> Parts) : BytePattern;

    /// <summary>Any of several.</summary>
    public sealed record Choice(params IReadOnlyList<BytePattern> Options) : BytePattern;

    /// <summary>At least <paramref name="Least"/> times, at most <paramref name="Most"/> (−1: any number).</summary>
    public sealed record Repeat(BytePattern Part, int Least, int Most) : BytePattern;

    /// <summary>A rule of the grammar, by its number.</summary>
    public sealed record Rule(int Number) : BytePattern;

    /// <summary>Nothing.</summary>
    public static BytePattern Nothing { get; } = new Sequence();

    /// <summary>These very bytes.</summary>
    public static BytePattern Literal(string text) => new Sequence([.. Encoding.UTF8.GetBytes(text).Select(value => Range(value, value))]);

    /// <summary>One byte from a range, both ends included.</summary>
    public static BytePattern Range(byte first, byte last)
    {
        var bytes = new BitArray(256);
        for (int value = first; value <= last; value++)
            bytes[value] = true;
        return new Set(bytes);
    }

    /// <summary>One of the characters, which are ASCII.</summary>
    public static BytePattern Any(string characters)
    {
        var bytes = new BitArray(256);
        foreach (var character in characters)
            bytes[character] = true;
        return new Set(bytes);
    }

    /// <summary>Once or not at all.</summary>
    public static BytePattern Optional(BytePattern part) => new Repeat(part, 0, 1);
}

/// <summary>
/// A grammar as an automaton over bytes: rules call each other on a stack, sets of (place, stack) are the states of a deterministic automaton
/// that is built as far as texts reach (Thompson 1968, with calls). Safe for many threads.
/// Grammars come from strangers, so work and memory have bounds: an ambiguous one has sets of places that grow exponentially with the text.
/// </summary>
internal sealed class ByteGrammar
{
    /// <summary>Places that one text may have looked at, about two seconds: those of ordinary schemas are some ten thousands.</summary>
    public const long MostWork = 1 << 24;

    private const int MostInstructions = 1 << 19, MostPlaces = 1 << 16;

    /// <summary>Bytes of the states that are kept.</summary>
    internal const long MostMemory = 32 << 20;

    private enum Op : byte { Match, Split, Jump, Need, Call, Return, Accept }

    /// <summary>Match: a set's number. Split: goes on at the next instruction and at Argument. Jump, Call: Argument is where. Need: goes on if so many levels are left.</summary>
    private readonly record struct Instruction(Op Op, int Argument, int Rule);

    private readonly List<Instruction> _program = [];
    private readonly List<BitArray> _sets = [];
    private readonly int[] _heights; // [rules]: levels of counted calls that a rule needs at least
    private readonly bool[] _counted; // [rules]
    private readonly int _depth;
    private readonly Lock _lock = new();
    private readonly Dictionary<Key, State> _states = [];
    private readonly Place[] _start;
    private readonly bool _empty; // whether the empty text is one
    private long _memory;
    private int _age; // counts how often the states began anew

    /// <summary>Compiles a grammar.</summary>
    /// <param name="start">What a whole text is.</param>
    /// <param name="rules">The rules, by number; whether a rule's calls count towards the depth.</param>
    /// <param name="depth">Most counted calls within each other.</param>
    /// <exception cref="FormatException">Nothing finite matches, or the grammar is too large.</exception>
    public ByteGrammar(BytePattern start, IReadOnlyList<(BytePattern Body, bool Counted)> rules, int depth)
    {
        (_depth, _counted) = (depth, [.. rules.Select(rule => rule.Counted)]);
        _heights = Heights(rules);
        if (Height(start) > depth)
            throw new FormatException("no finite value satisfies it");
        Emit(start);
        _program.Add(new(Op.Accept, 0, 0));
        var starts = new int[rules.Count];
        for (var rule = 0; rule < rules.Count; rule++)
        {
            starts[rule] = _program.Count;
            Emit(rules[rule].Body);
            _program.Add(new(Op.Return, 0, 0));
        }
        for (var i = 0; i < _program.Count; i++)
            if (_program[i].Op == Op.Call)
                _program[i] = _program[i] with { Argument = starts[_program[i].Rule] };
        long work = 0;
        (_start, _empty) = Closure([(0, null)], ref work);
    }

    /// <summary>Bytes of the states that are kept now.</summary>
    internal long Memory => Volatile.Read(ref _memory);

    /// <summary>How often the states began anew.</summary>
    internal int Age => Volatile.Read(ref _age);

    /// <summary>The state before the first byte.</summary>
    public State Start => Intern((_start, _empty));

    /// <summary>Where a text stands: what may follow depends on nothing else.</summary>
    public sealed class State
    {
        private readonly State?[] _next = new State?[256];

        internal State(Place[] places, bool canEnd, int age) => (Places, CanEnd, Age) = (places, canEnd, age);

        internal Place[] Places { get; }

        /// <summary>States of another age than the grammar's lead nowhere: only so are those that nobody stands at freed.</summary>
        internal int Age { get; }

        /// <summary>Whether the text may end here.</summary>
        public bool CanEnd { get; }

        /// <summary>Whether nothing may follow, and the text is none that could.</summary>
        public bool IsDead => Places.Length == 0 && !CanEnd;

        /// <summary>Whether nothing may follow but the end.</summary>
        public bool IsComplete => Places.Length == 0 && CanEnd;

        /// <summary>Tokens that may follow, a bit each; kept here by <see cref="TokenTrie"/>.</summary>
        internal ulong[]? Allowed { get; set; }

        internal State? this[byte next]
        {
            get => Volatile.Read(ref _next[next]);
            set => Volatile.Write(ref _next[next], value);
        }
    }

    /// <summary>An instruction that matches a byte, and what is returned to after the rules around it.</summary>
    internal readonly record struct Place(int At, Frame? Stack);

    /// <summary>A call's return, and those around it.</summary>
    internal sealed class Frame : IEquatable<Frame>
    {
        private readonly int _hash;

        public Frame(int back, Frame? under, int depth)
        {
            (Back, Under, Depth) = (back, under, depth);
            _hash = HashCode.Combine(back, under?._hash ?? 0);
        }

        public int Back { get; }

        public Frame? Under { get; }

        public int Depth { get; }

        public bool Equals(Frame? other)
        {
            var (a, b) = (this, other);
            for (; !ReferenceEquals(a, b); (a, b) = (a.Under, b.Under))
                if (a is null || b is null || a._hash != b._hash || a.Back != b.Back)
                    return false;
            return true;
        }

        public override bool Equals(object? obj) => Equals(obj as Frame);

        public override int GetHashCode() => _hash;
    }

    /// <summary>The state after one more byte.</summary>
    /// <param name="state">The state before it.</param>
    /// <param name="value">The byte.</param>
    /// <param name="work">Places that were looked at for this text.</param>
    /// <exception cref="ConstraintTooCostlyException">They are more than <see cref="MostWork"/>.</exception>
    public State Next(State state, byte value, ref long work)
    {
        var current = state.Age == Volatile.Read(ref _age);
        if (current && state[value] is { } known)
            return known;
        var places = new List<Place>();
        foreach (var place in state.Places)
            if (_sets[_program[place.At].Argument][value])
                places.Add(new(place.At + 1, place.Stack));
        var next = Intern(Closure([.. places.Select(place => (place.At, place.Stack))], ref work));
        if (current)
            state[value] = next;
        return next;
    }

    private readonly struct Key(Place[] places, bool canEnd) : IEquatable<Key>
    {
        private readonly Place[] _places = places;
        private readonly bool _canEnd = canEnd;

        public bool Equals(Key other) => _canEnd == other._canEnd && _places.AsSpan().SequenceEqual(other._places);

        public override bool Equals(object? obj) => obj is Key other && Equals(other);

        public override int GetHashCode()
        {
            var hash = new HashCode();
            foreach (var place in _places)
                hash.Add(place);
            return hash.ToHashCode();
        }
    }

    private State Intern((Place[] Places, bool CanEnd) found)
    {
        lock (_lock)
        {
            var key = new Key(found.Places, found.CanEnd);
            if (_states.TryGetValue(key, out var state))
                return state;
            // A state has a table of 256 links, and a place a frame of its own at the worst.
            Charge(2200 + 64L * found.Places.Length);
            return _states[key] = new(found.Places, found.CanEnd, _age);
        }
    }

    /// <summary>Counts memory that states hold; where it is too much, all begin anew.</summary>
    internal void Charge(long bytes)
    {
        lock (_lock)
        {
            if ((_memory += bytes) <= MostMemory)
                return;
            _states.Clear();
            _memory = bytes;
            Volatile.Write(ref _age, _age + 1);
        }
    }

    /// <summary>Follows everything that takes no byte.</summary>
    private (Place[] Places, bool CanEnd) Closure(IReadOnlyList<(int At, Frame? Stack)> from, ref long work)
    {
        var (places, seen, open, canEnd) = (new List<Place>(), new HashSet<Place>(), new Stack<Place>(), false);
        for (var i = from.Count - 1; i >= 0; i--)
            open.Push(new(from[i].At, from[i].Stack));
        while (open.TryPop(out var place))
        {
            if (++work > MostWork || seen.Count > MostPlaces)
                throw new ConstraintTooCostlyException("the schema allows so much at once that following an answer through it takes too long; say by a constant or a type which of its alternatives is meant");
            if (!seen.Add(place))
                continue;
            var instruction = _program[place.At];
            switch (instruction.Op)
            {
                case Op.Match:
                    places.Add(place);
                    break;
                case Op.Split:
                    open.Push(place with { At = instruction.Argument });
                    open.Push(place with { At = place.At + 1 });
                    break;
                case Op.Jump:
                    open.Push(place with { At = instruction.Argument });
                    break;
                case Op.Need:
                    // No way that could not come to an end within the depth.
                    if ((place.Stack?.Depth ?? 0) + instruction.Argument <= _depth)
                        open.Push(place with { At = place.At + 1 });
                    break;
                case Op.Call:
                    var counted = _counted[instruction.Rule];
                    var depth = (place.Stack?.Depth ?? 0) + (counted ? 1 : 0);
                    var back = place.At + 1;
                    while (_program[back].Op == Op.Jump)
                        back = _program[back].Argument;
                    // What returns only to return is not returned to.
                    var last = !counted && place.Stack is not null && _program[back].Op == Op.Return;
                    open.Push(new(instruction.Argument, last ? place.Stack : new(back, place.Stack, depth)));
                    break;
                case Op.Return:
                    open.Push(new(place.Stack!.Back, place.Stack.Under));
                    break;
                default:
                    canEnd = true;
                    break;
            }
        }
        return ([.. places], canEnd);
    }

    private void Emit(BytePattern pattern)
    {
        if (_program.Count > MostInstructions)
            throw new FormatException("it is too large");
        switch (pattern)
        {
            case BytePattern.Set set:
                _sets.Add(set.Bytes);
                _program.Add(new(Op.Match, _sets.Count - 1, 0));
                break;
            case BytePattern.Sequence sequence:
                foreach (var part in sequence.Parts)
                    Emit(part);
                break;
            case BytePattern.Choice choice:
                var jumps = new List<int>();
                for (var i = 0; i < choice.Options.Count; i++)
                {
                    var split = i + 1 < choice.Options.Count ? Reserve() : -1;
                    EmitWithin(choice.Options[i]);
                    if (split < 0)
                        break;
                    jumps.Add(Reserve());
                    _program[split] = new(Op.Split, _program.Count, 0);
                }
                foreach (var jump in jumps)
                    _program[jump] = new(Op.Jump, _program.Count, 0);
                break;
            case BytePattern.Repeat repeat:
                for (var i = 0; i < repeat.Least; i++)
                    Emit(repeat.Part);
                if (repeat.Most < 0)
                {
                    var split = Reserve();
                    EmitWithin(repeat.Part);
                    _program.Add(new(Op.Jump, split, 0));
                    _program[split] = new(Op.Split, _program.Count, 0);
                    break;
                }
                var splits = new List<int>();
                for (var i = repeat.Least; i < repeat.Most; i++)
                {
                    splits.Add(Reserve());
                    EmitWithin(repeat.Part);
                }
                foreach (var split in splits)
                    _program[split] = new(Op.Split, _program.Count, 0);
                break;
            case BytePattern.Rule rule:
                _program.Add(new(Op.Call, 0, rule.Number));
                break;
        }

        int Reserve()
        {
            _program.Add(default);
            return _program.Count - 1;
        }
    }

    /// <summary>One of several ways, which is taken only where it leads to an end.</summary>
    private void EmitWithin(BytePattern pattern)
    {
        if (Height(pattern) is var height and > 0)
            _program.Add(new(Op.Need, height, 0));
        Emit(pattern);
    }

    /// <summary>
    /// The least depth that each rule needs, one more than there is where that does not suffice. Rules that do not count call earlier ones or such as
    /// count, so each round settles one more level.
    /// </summary>
    private int[] Heights(IReadOnlyList<(BytePattern Body, bool Counted)> rules)
    {
        var heights = new int[rules.Count];
        Array.Fill(heights, _depth + 1);
        for (var (round, changed) = (0, true); changed && round <= _depth; round++)
        {
            changed = false;
            for (var rule = 0; rule < rules.Count; rule++)
            {
                var height = Height(rules[rule].Body, heights);
                (changed, heights[rule]) = (changed || height < heights[rule], Math.Min(height, heights[rule]));
            }
        }
        return heights;
    }

    private int Height(BytePattern pattern) => Height(pattern, _heights);

    private int Height(BytePattern pattern, int[] heights)
    {
        switch (pattern)
        {
            case BytePattern.Sequence sequence:
                var most = 0;
                foreach (var part in sequence.Parts)
                    most = Math.Max(most, Height(part, heights));
                return most;
            case BytePattern.Choice choice:
                var least = _depth + 1;
                foreach (var part in choice.Options)
                    least = Math.Min(least, Height(part, heights));
                return least;
            case BytePattern.Repeat repeat:
                return repeat.Least == 0 ? 0 : Height(repeat.Part, heights);
            case BytePattern.Rule rule:
                return Math.Min(heights[rule.Number] + (_counted[rule.Number] ? 1 : 0), _depth + 1);
            default:
                return 0;
        }
    }
}

using Trimtab.Checkpoints;
using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Steering;
using Trimtab.Text;

namespace Trimtab.Server.Serving;

/// <summary>
/// A model with its vectors and its policy: the one way from a request to the engine (<see cref="AskAsync"/>). Whether a prompt has images
/// is read off the prompt that will run, never off the request, and what was decided is checked again just before it runs.
/// </summary>
internal sealed class SteeredModel : IDisposable
{
    private readonly Lock _changes = new();
    private Policy _policy;

    /// <param name="model">The model; owned from here on.</param>
    /// <param name="vectors">Its vector sets.</param>
    /// <param name="policy">The policy.</param>
    /// <param name="options">Limits.</param>
    /// <param name="audit">The audit log, or null; owned from here on.</param>
    /// <exception cref="InvalidCheckpointException">The policy demands vectors that are not there, or not as it says.</exception>
    public SteeredModel(VisionLanguageModel model, VectorCatalog vectors, Policy policy, ServeOptions options, AuditLog? audit = null)
    {
        (Model, Vectors, _policy, Options, Audit) = (model, vectors, policy, options, audit);
        if (!policy.StartWithoutVectors && Unusable(policy) is { } missing)
            throw new InvalidCheckpointException($"{missing}; nothing is served unsteered that the policy steers");
        Metrics = new(this);
        audit?.Append("start", writer =>
        {
            writer.WriteString("model", options.ModelName);
            writer.WriteString("fingerprint", model.Network.Fingerprint);
            writer.WriteString("weights_hash", model.WeightsHash);
            writer.WriteString("policy", policy.Version);
            writer.WriteString("policy_hash", policy.Hash);
            writer.WriteStartObject("vectors");
            foreach (var set in vectors.Sets.Values)
                writer.WriteString(set.Name, set.Vectors.Hash);
            writer.WriteEndObject();
        });
    }

    /// <summary>The model.</summary>
    public VisionLanguageModel Model { get; }

    /// <summary>Its vector sets.</summary>
    public VectorCatalog Vectors { get; }

    /// <summary>The policy of this moment.</summary>
    public Policy Policy => Volatile.Read(ref _policy);

    /// <summary>Limits.</summary>
    public ServeOptions Options { get; }

    /// <summary>The audit log, or null.</summary>
    public AuditLog? Audit { get; }

    /// <summary>What is counted.</summary>
    public ServingMetrics Metrics { get; }

    /// <summary>Decoder layers.</summary>
    public int Layers => Model.Network.Spec.Text.Layers;

    /// <summary>Columns of the logits.</summary>
    public int Vocabulary => Model.Network.Spec.Text.VocabularySize;

    /// <summary>Why requests with images cannot be answered now, or null.</summary>
    public string? ImagesRefused => Policy.Missing(Policy.Images, Vectors);

    /// <summary>Puts a policy in place of the one there is; requests in flight keep theirs.</summary>
    /// <exception cref="InvalidCheckpointException">It demands vectors that are not there; nothing has changed.</exception>
    public void Change(Policy policy)
    {
        lock (_changes)
        {
            if (!policy.StartWithoutVectors && Unusable(policy) is { } missing)
                throw new InvalidCheckpointException(missing);
            Volatile.Write(ref _policy, policy);
        }
    }

    /// <summary>Puts vectors in place of those of the same names; requests in flight keep theirs.</summary>
    /// <exception cref="InvalidCheckpointException">The policy does not allow them under their name; nothing has changed.</exception>
    public void Change(params IReadOnlyCollection<NamedVectors> sets)
    {
        lock (_changes)
        {
            foreach (var rule in new[] { Policy.Images, Policy.Text })
            {
                if (sets.FirstOrDefault(set => set.Name == rule.Vectors) is { } other && Policy.Mismatch(rule, other) is { } mismatch)
                    throw new InvalidCheckpointException($"{mismatch}; put them under another name, then a policy that names them");
            }
            Vectors.Put(sets);
        }
    }

    /// <summary>Reads every vector file again: all of them change, or none.</summary>
    /// <exception cref="InvalidCheckpointException">One of the files is not usable, or not the one that the policy names; nothing has changed.</exception>
    public int Reload()
    {
        lock (_changes)
        {
            var sets = Vectors.ReadAgain();
            Change(sets);
            return sets.Count;
        }
    }

    /// <summary>Takes vectors out, even those that the policy needs: requests that need them are refused then.</summary>
    /// <returns>Whether there were any.</returns>
    public bool Remove(string name)
    {
        lock (_changes)
            return Vectors.Remove(name);
    }

    /// <summary>Characters beyond which a text is not even made tokens of.</summary>
    public const int LongestText = 4 << 20;

    /// <summary>
    /// Makes a question of a conversation. What it will cost is known from texts and image headers, and refused where it is too much, before an image is
    /// decoded; from then on it holds what the vision encoder reads, and no more.
    /// </summary>
    /// <param name="exchange">The request.</param>
    /// <param name="conversation">What it says.</param>
    /// <param name="answers">Answers that it wants, for which the engine must have room.</param>
    public async Task<Question> QuestionAsync(Exchange exchange, Conversation conversation, int answers)
    {
        var ((turns, links), files, model) = (conversation, new List<ImageFile>(), Model.Files);
        if (links.Count > 0 && model.Spec.Vision is null)
            throw ApiException.Invalid(links[0].Param, "is an image, and this model sees none");
        var ids = Render(turns);
        if (answers > 0)
            Model.CheckRoom(answers);
        var (tokens, values, alone) = (ids.Length - links.Count, 0L, links.Count == 1);
        foreach (var (url, param) in links)
        {
            var file = await exchange.Images.ReadAsync(url, param, exchange.Memory, exchange.Cancel).ConfigureAwait(false);
            files.Add(file);
            var (own, read) = Read("messages", () => (model.ImageTokens(file.Width, file.Height, alone), model.ImageValues(file.Width, file.Height, alone)));
            (tokens, values) = (tokens + own, values + read);
            CheckFits(tokens);
        }
        CheckFits(tokens);
        exchange.Memory.Take(sizeof(float) * values);
        Prompt Expand() => Read("messages", () => model.Expand(ids, files.Count, i => exchange.Images.Decode(files[i])));
        var prompt = files.Count == 0 ? Expand() : await exchange.Images.DecodingAsync(Expand, exchange.Cancel).ConfigureAwait(false);
        exchange.Memory.Keep(sizeof(float) * values);
        return new(prompt, ids, files.Count == 0 ? null : () => Model.ChatPair(turns));
    }

    /// <summary>Makes a question of token ids, which have no images.</summary>
    public Question Ask(int[] ids) => new(Read("prompt", () => Model.Files.Expand(ids, [])), ids, null, Raw: true);

    /// <summary>Token ids of a conversation by the model's chat template, one placeholder for each image.</summary>
    internal int[] Render(IReadOnlyList<ChatMessage> turns)
    {
        CheckLength(turns.Sum(turn => (long)turn.Content.Length), MostText, "messages");
        return Read("messages", () => Model.Files.Encode(Model.Files.Render(turns), rendered: true));
    }

    /// <summary>Token ids of a text as it stands.</summary>
    public int[] Encode(string text)
    {
        CheckLength(text.Length, MostText, "prompt");
        return Read("prompt", () => Model.Files.Encode(text, rendered: false));
    }

    /// <summary>Refuses texts that would only cost time.</summary>
    public static void CheckLength(long characters, int most, string param)
    {
        if (characters > most)
            throw ApiException.Invalid(param, $"has {characters} characters; at most {most} are taken", "context_length_exceeded");
    }

    /// <summary>No text of so many characters fits the context, however common its words.</summary>
    private int MostText => (int)Math.Min(LongestText, 64L * Model.ContextLength + (64 << 10));

    /// <summary>Does what fails where the request is at fault. Where the model's files lie is nobody's business.</summary>
    private static T Read<T>(string param, Func<T> run)
    {
        try
        {
            return run();
        }
        catch (ChatTemplateException error)
        {
            throw ApiException.Invalid(param, error.Reason);
        }
        catch (Exception error) when (error is ArgumentException or InvalidOperationException or InvalidDataException or InvalidImageException)
        {
            throw ApiException.Invalid(param, ApiException.Pathless(error.Message));
        }
    }

    private void CheckFits(int tokens)
    {
        if (tokens > Model.ContextLength)
            throw ApiException.Invalid("messages", $"has {tokens} tokens or more, images included; the context holds {Model.ContextLength}", "context_length_exceeded");
    }

    /// <summary>Starts the answers to a question, steered as the policy says.</summary>
    /// <param name="exchange">The request.</param>
    /// <param name="prefix">What its id begins with.</param>
    /// <param name="question">What is asked.</param>
    /// <param name="settings">How.</param>
    /// <exception cref="ApiException">The request is not allowed, cannot run, or comes when there is no room.</exception>
    public async Task<Answer> AskAsync(Exchange exchange, string prefix, Question question, AnswerSettings settings)
    {
        var id = exchange.NewId(prefix);
        var trace = AnswerTrace.Start(Options.ModelName, exchange, id, question, settings);
        try
        {
            return await AskAsync(exchange, id, question, settings, trace).ConfigureAwait(false);
        }
        catch (Exception error)
        {
            trace?.Fail(error);
            trace?.Dispose();
            throw;
        }
    }

    private async Task<Answer> AskAsync(Exchange exchange, string id, Question question, AnswerSettings settings, AnswerTrace? trace)
    {
        var (policy, images, caller) = (Policy, question.Prompt.Images.Count > 0, exchange.Caller);
        SteeringDecision decision;
        try
        {
            decision = policy.Decide(caller, images, settings.Steering, Vectors);
            policy.CheckForced(caller, images, decision, settings.Forces(question));
        }
        catch (ApiException refusal)
        {
            Record("refused", caller, id, policy, images, writer => writer.WriteString("reason", refusal.Message));
            throw;
        }
        var room = Room(question);
        var (steering, alone) = await SteerAsync(policy, images, decision, question, CacheGroup(caller), exchange.Cancel).ConfigureAwait(false);
        var options = Generation(settings, steering, room, CacheGroup(caller));
        policy.Confirm(caller, images, decision);
        if (decision.Mode != SteeringMode.Off && (options.Steering is not { } running || running.Alpha != decision.Alpha || running.Scope != decision.Scope
            || !VectorCatalog.Steers(running.Vectors, running.Layers)))
            throw new ApiException(503, "the steering that was decided cannot be applied to this request", null, "steering_unavailable");
        Record("asked", caller, id, policy, images, writer =>
        {
            writer.WriteString("mode", SteeringRequest.Word(decision.Mode));
            if (decision.Mode == SteeringMode.Off)
                return;
            writer.WriteString("vectors", decision.Set?.Name);
            writer.WriteString("vectors_hash", steering!.Vectors.Hash);
            writer.WriteNumber("alpha", decision.Alpha);
            if (decision.RaisedFrom is { } from)
                writer.WriteNumber("raised_from", from);
            writer.WriteString("scope", SteeringRequest.Word(decision.Scope));
            writer.WriteString("layers", decision.Layers?.ToString() ?? "all");
        });
        Metrics.Asked(images, decision, settings.Count);
        trace?.Decided(policy, decision);
        var answer = new Answer(this, exchange, id, question, settings) { Decision = decision, Steering = steering, Policy = policy, TextAloneIds = alone, Trace = trace };
        try
        {
            await answer.StartAsync(Model, options).ConfigureAwait(false);
            return answer;
        }
        catch (Exception error)
        {
            trace?.Fail(error);
            answer.Dispose();
            if (error is ArgumentException)
                throw ApiException.Invalid(question.Raw ? "prompt" : "messages", error.Message);
            throw;
        }
    }

    /// <summary>Counts and logs how an answer's choices ended, and whether its reader left before.</summary>
    internal void End(Answer answer)
    {
        for (var choice = 0; choice < answer.Ended.Count; choice++)
        {
            if (answer.Ended[choice] is not { } sequence)
                continue;
            Metrics.Ended(sequence);
            var index = choice;
            Record("answered", answer.Caller, answer.Id, answer.Policy, answer.Question.Prompt.Images.Count > 0, writer =>
            {
                writer.WriteNumber("choice", index);
                writer.WriteString("finish", Answer.FinishWord(sequence.Finish));
                writer.WriteNumber("tokens", sequence.Generated.Count);
                writer.WriteString("prompt_hash", Receipt.HashOf<int>(answer.Question.Prompt.Tokens));
                writer.WriteString("token_ids_hash", Receipt.HashOf<int>(sequence.Generated.ToArray()));
                writer.WriteString("logits_hash", sequence.LogitsHash);
            });
        }
        if (!answer.Ended.Contains(null))
            return;
        var left = answer.Failure is null or OperationCanceledException;
        if (left)
            Metrics.Abandoned();
        Record(left ? "abandoned" : "failed", answer.Caller, answer.Id, answer.Policy, answer.Question.Prompt.Images.Count > 0, writer => writer.WriteNumber("tokens", answer.Tokens));
    }

    /// <summary>Logs an admin's change, or that it failed.</summary>
    internal void RecordChange(string what, Caller caller, string? name, string? hash) => Audit?.Append(what, writer =>
    {
        writer.WriteString("caller", caller.Id);
        if (name is not null)
            writer.WriteString("name", name);
        if (hash is not null)
            writer.WriteString("hash", hash);
    });

    /// <summary>Why a policy cannot be kept with the vectors that there are, or null.</summary>
    private string? Unusable(Policy policy) => Policy.Missing(policy.Images, Vectors) ?? Policy.Missing(policy.Text, Vectors);

    private async Task<(SteeringOptions? Steering, int[]? TextAlone)> SteerAsync(
        Policy policy, bool images, SteeringDecision decision, Question question, string? group, CancellationToken cancel)
    {
        switch (decision.Mode)
        {
            case SteeringMode.Off:
                // Observed at alpha 0, which changes nothing, where there are vectors to observe by.
                return (policy.Rule(images).Vectors is { } name && Vectors.Find(name) is { } set ? new(set.Vectors, 0, policy.Rule(images).Scope) : null, null);
            case SteeringMode.Dataset:
                return (new(decision.Set!.Vectors, decision.Alpha, decision.Scope, decision.Layers), null);
            default:
                var pair = question.Pair!();
                ShiftVectors vectors;
                using (var time = CancellationTokenSource.CreateLinkedTokenSource(cancel))
                {
                    time.CancelAfter(Options.AnswerTime);
                    vectors = await Model.SampleShiftAsync(pair, group, time.Token).ConfigureAwait(false);
                }
                if (!VectorCatalog.Steers(vectors, decision.Layers))
                    throw new ApiException(503, "the request's own vectors are zero: an image does not shift it", "steering.mode", "steering_unavailable");
                return (new(vectors, decision.Alpha, decision.Scope, decision.Layers), pair.TextAlone.Tokens);
        }
    }

    /// <summary>Tokens that an answer may have in what the prompt leaves of the context.</summary>
    private int Room(Question question)
    {
        var room = Model.ContextLength - question.Prompt.Tokens.Length;
        return room >= 0 ? room : throw new ApiException(
            400, $"the prompt has {question.Prompt.Tokens.Length} tokens, images included; the context holds {Model.ContextLength}", "messages", "context_length_exceeded");
    }

    /// <summary>Whose prompts a caller's may share keys and values with: everybody's, or its own.</summary>
    private string? CacheGroup(Caller caller) => Options.PrivateCache ? caller.Id : null;

    private GenerationOptions Generation(AnswerSettings settings, SteeringOptions? steering, int room, string? group) => new()
    {
        MaxTokens = Math.Min(settings.MaxTokens ?? Options.MaxTokens, room),
        Sampling = settings.Sampling,
        Stop = settings.Stop,
        Steering = steering,
        Telemetry = settings.Steering.Series ? TelemetryDetail.Series : TelemetryDetail.Summary,
        Deadline = DateTimeOffset.UtcNow + Options.AnswerTime,
        Constraint = settings.Format?.Begin,
        CacheGroup = group,
        IgnoreEos = settings.IgnoreEos,
        HashLogits = true,
    };

    private void Record(string what, Caller caller, string id, Policy policy, bool images, Action<System.Text.Json.Utf8JsonWriter> write)
    {
        try
        {
            Audit?.Append(what, writer =>
            {
                writer.WriteString("id", id);
                writer.WriteString("caller", caller.Id);
                writer.WriteString("policy", policy.Version);
                writer.WriteBoolean("images", images);
                write(writer);
            });
        }
        catch (Exception error) when (error is IOException or ArgumentOutOfRangeException) // the latter at a limit of the file's size
        {
            throw new ApiException(503, "the audit log cannot be written, and nothing is answered without it", null, "audit_unavailable") { Source = error.Message };
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Metrics.Dispose();
        Model.Dispose();
        Audit?.Dispose();
    }
}

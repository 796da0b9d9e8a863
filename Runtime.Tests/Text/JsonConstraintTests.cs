using System.Text.Json;
using Trimtab.Text;

namespace Trimtab.Tests.Text;

/// <summary>The constraint as an engine uses it: mask, draw, accept.</summary>
public class JsonConstraintTests
{
    private static JsonElement Schema => JsonDocument.Parse("""{"type":"object","properties":{"the a":{"type":"integer","maximum":9,"minimum":0}},"required":["the a"]}""").RootElement;

    private static int[] Allowed(JsonConstraint constraint, int vocabulary)
    {
        var logits = new float[vocabulary];
        Array.Fill(logits, 0.5f);
        constraint.Mask(logits);
        return [.. Enumerable.Range(0, vocabulary).Where(id => logits[id] == 0.5f)];
    }

    [Test]
    public void Masked_draws_write_the_schema_and_then_nothing_more()
    {
        var tokenizer = TinyTokenizers.ByteLevel();
        var random = new Random(11);
        for (var round = 0; round < 30; round++)
        {
            var constraint = JsonConstraint.ForSchema(Schema, tokenizer);
            var ids = new List<int>();
            while (!constraint.Complete)
            {
                // A model's vocabulary may have more rows than its tokenizer: these are never allowed.
                var allowed = Allowed(constraint, tokenizer.VocabularySize + 70);
                Assert.That(allowed, Is.Not.Empty.And.All.LessThan(tokenizer.VocabularySize));
                ids.Add(allowed[random.Next(allowed.Length)]);
                Assert.That(constraint.MayEnd, Is.False);
                constraint.Accept(ids[^1]);
            }
            Assert.That(constraint.MayEnd, Is.True);
            Assert.That(Allowed(constraint, tokenizer.VocabularySize), Is.Empty);
            Assert.That(JsonDocument.Parse(tokenizer.Decode([.. ids])).RootElement.GetProperty("the a").GetInt32(), Is.InRange(0, 9));
        }
    }

    [Test]
    public void A_token_that_cannot_come_next_is_refused_and_changes_nothing()
    {
        var tokenizer = TinyTokenizers.ByteLevel();
        var constraint = JsonConstraint.ForObject(tokenizer);
        var before = Allowed(constraint, tokenizer.VocabularySize);
        Assert.That(() => constraint.Accept(tokenizer.IdOf("}")!.Value), Throws.ArgumentException.With.Message.Contains("cannot come next"));
        Assert.That(Allowed(constraint, tokenizer.VocabularySize), Is.EqualTo(before));
        constraint.Accept(tokenizer.IdOf("{")!.Value);
        Assert.That(Allowed(constraint, tokenizer.VocabularySize), Does.Contain(tokenizer.IdOf("}")!.Value));
    }

    [Test]
    public void Answers_under_way_do_not_disturb_each_other()
    {
        var tokenizer = TinyTokenizers.ByteLevel();
        var (first, second) = (JsonConstraint.ForSchema(Schema, tokenizer), JsonConstraint.ForSchema(Schema, tokenizer));
        first.Accept(tokenizer.IdOf("{")!.Value);
        Assert.That(Allowed(second, tokenizer.VocabularySize), Does.Contain(tokenizer.IdOf("{")!.Value));
        Assert.That(Allowed(first, tokenizer.VocabularySize), Does.Not.Contain(tokenizer.IdOf("{")!.Value));
    }
}

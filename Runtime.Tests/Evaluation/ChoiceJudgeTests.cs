using Trimtab.Evaluation;

namespace Trimtab.Tests.Evaluation;

public class ChoiceJudgeTests
{
    private static readonly Dictionary<char, string> Animals = new() { ['A'] = "discus", ['B'] = "armored catfish", ['C'] = "bear", ['D'] = "black bear" };

    [TestCase("B", 'B')]
    [TestCase("b", 'B')]
    [TestCase("b)", 'B')]
    [TestCase("(B)", 'B')]
    [TestCase("B.", 'B')]
    [TestCase(" B: ", 'B')]
    [TestCase("**B**", 'B')]
    [TestCase("**B. armored catfish**", 'B')]
    [TestCase("B. armored catfish", 'B')]
    [TestCase("B armored catfish", 'B')]
    [TestCase("B) Because its mouth points downward.", 'B')]
    [TestCase("The answer is B", 'B')]
    [TestCase("The answer is B.", 'B')]
    [TestCase("The correct answer is **(B)**.", 'B')]
    [TestCase("the correct option is: B", 'B')]
    [TestCase("Answer: B", 'B')]
    [TestCase("Option B is correct.", 'B')]
    [TestCase("I would choose B because of its mouth.", 'B')]
    [TestCase("Looking at the picture, it must be (B).", 'B')]
    [TestCase("I think it's B.", 'B')]
    [TestCase("It is not A, so B.", 'B')]
    [TestCase("B. A and C are wrong.", 'B')]
    [TestCase("armored catfish", 'B')]
    [TestCase("An armored catfish.", 'B')]
    [TestCase("The answer is the armored catfish.", 'B')]
    [TestCase("It shows a black bear.", 'D')]
    [TestCase("bear", 'C')]
    [TestCase("A discus.", 'A')]
    [TestCase("Ｂ", 'B')]
    [TestCase("$\\boxed{B}$", 'B')]
    [TestCase("B\n\nThe catfish feeds at the bottom.", 'B')]
    [TestCase("Final answer: C. At first the answer is B seemed right.", 'C')]
    public void A_letter_is_found(string text, char letter) => Assert.That(ChoiceJudge.Parse(text, Animals), Is.EqualTo(letter));

    [TestCase("")]
    [TestCase("I do not know.")]
    [TestCase("E")]
    [TestCase("A or B")]
    [TestCase("A, B")]
    [TestCase("Both (A) and (C)")]
    [TestCase("The answer is A or B.")]
    [TestCase("A. discus\nB. armored catfish\nC. bear\nD. black bear")]
    [TestCase("(A) seems right, but (B) as well.")]
    [TestCase("A. armored catfish")]
    [TestCase("The discus or the armored catfish.")]
    [TestCase("A fish is shown here.")]
    public void What_is_ambiguous_stays_unparsed(string text) => Assert.That(ChoiceJudge.Parse(text, Animals), Is.Null);

    [Test]
    public async Task The_judge_says_right_wrong_or_nothing()
    {
        var question = new Question { Dataset = "d", Id = "1", Text = "?", Choices = Animals, Expected = "B" };
        async Task<Judgement?> Judge(string text) => await new ChoiceJudge().JudgeAsync(question, Answers.Of("d", "1", text: text));
        Assert.That((await Judge("B."))!.Correct, Is.True);
        Assert.That((await Judge("C"))!.Correct, Is.False);
        Assert.That((await Judge("no idea"))!.Correct, Is.Null);
        Assert.That(Verdict.IsUnparsed((await Judge("no idea"))!.Verdict));
        Assert.That(await new PhraseJudge().JudgeAsync(question, Answers.Of("d", "1", text: "B")), Is.Null);
        question = question with { Choices = new Dictionary<char, string>(), Expected = "Two cats." };
        Assert.That((await new ExactJudge().JudgeAsync(question, Answers.Of("d", "1", text: " two  cats")))!.Correct, Is.True);
        Assert.That((await new ExactJudge().JudgeAsync(question, Answers.Of("d", "1", text: "two")))!.Correct, Is.False);
        Assert.That(await Judge("B"), Is.Null);
    }
}

using Trimtab.Evaluation;

namespace Trimtab.Tests.Evaluation;

public class StatisticsTests
{
    // By hand: centre (p + z²/2n) / (1 + z²/n), half z/(1 + z²/n) · √(p(1 − p)/n + z²/4n²).
    [TestCase(0, 10, 0, 0.277533)]
    [TestCase(10, 10, 0.722467, 1)]
    [TestCase(5, 10, 0.236593, 0.763407)]
    [TestCase(615, 1000, 0.584456, 0.644669)]
    public void Wilson_agrees_with_tables(int successes, int n, double low, double high)
    {
        var interval = Statistics.Wilson(successes, n);
        Assert.That(interval.Low, Is.EqualTo(low).Within(2e-4));
        Assert.That(interval.High, Is.EqualTo(high).Within(2e-4));
    }

    [Test]
    public void Wilson_of_nothing_is_everything()
    {
        Assert.That(Statistics.Wilson(0, 0), Is.EqualTo((0.0, 1.0)));
        Assert.That(() => Statistics.Wilson(2, 1), Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => Statistics.Wilson(-1, 1), Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public void Bootstrap_pairs_and_repeats()
    {
        double[] before = [.. Enumerable.Range(0, 100).Select(i => i < 60 ? 1.0 : 0)], after = [.. Enumerable.Range(0, 100).Select(i => i < 40 ? 1.0 : 0)];
        var change = Statistics.PairedBootstrap(before, after, 7);
        // 20 pairs of −1 and 80 of 0: mean −0.2, standard error 0.04.
        Assert.That(change.Difference, Is.EqualTo(-0.2).Within(1e-12));
        Assert.That(change.Low, Is.EqualTo(-0.28).Within(0.021));
        Assert.That(change.High, Is.EqualTo(-0.12).Within(0.021));
        Assert.That(Statistics.PairedBootstrap(before, after, 7), Is.EqualTo(change));
        Assert.That(Statistics.PairedBootstrap(before, before), Is.EqualTo((0.0, 0.0, 0.0)));
        Assert.That(Statistics.PairedBootstrap([], []).Difference, Is.NaN);
        Assert.That(() => Statistics.PairedBootstrap([1], []), Throws.ArgumentException);
    }

    [Test]
    public void Correlations_agree_with_hand_computed_ones()
    {
        Assert.That(Statistics.Pearson([1, 2, 3, 4], [2, 4, 6, 8]), Is.EqualTo(1).Within(1e-12));
        Assert.That(Statistics.Pearson([1, 2, 3], [1, 3, 2]), Is.EqualTo(0.5).Within(1e-12));
        Assert.That(Statistics.Spearman([1, 2, 3, 4], [1, 8, 27, 1000]), Is.EqualTo(1).Within(1e-12));
        Assert.That(Statistics.Spearman([1, 2, 2, 4], [4, 3, 2, 1]), Is.EqualTo(-4.5 / Math.Sqrt(4.5 * 5)).Within(1e-12));
        Assert.That(Statistics.Pearson([1, 1, 1], [1, 2, 3]), Is.NaN);
        Assert.That(Statistics.Pearson([1], [1]), Is.NaN);
    }

    [Test]
    public void Kappa_is_agreement_beyond_chance()
    {
        // 20 both yes, 15 both no, 5 and 10 mixed: observed 0.7, by chance 0.5.
        bool[] first = [.. Enumerable.Range(0, 50).Select(i => i < 25)];
        bool[] second = [.. Enumerable.Range(0, 50).Select(i => i < 20 || i is >= 25 and < 35)];
        Assert.That(Statistics.Kappa(first, second), Is.EqualTo(0.4).Within(1e-12));
        Assert.That(Statistics.Kappa([true], [true]), Is.NaN);
        Assert.That(Statistics.Kappa([], []), Is.NaN);
    }
}

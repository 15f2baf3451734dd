//! Figures of repeated rounds, and how they are written.

/// What one thing measured in each round. It is reported as its median with its extremes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            len if len % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// The value that `percent` of the values do not exceed (nearest rank).
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.len() * percent).div_ceil(100).max(1);
        self.sorted().get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }

    /// `median (min–max)`, or the median alone where there is but one value.
    pub(crate) fn spread(&self) -> String {
        match self.len() {
            0 => "–".to_owned(),
            1 => figure(self.median()),
            _ => format!("{} ({}–{})", figure(self.median()), figure(self.min()), figure(self.max())),
        }
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// A figure to about three digits, with its thousands set apart: `0.0123`, `1.23`, `12.3`, `1,234`.
pub(crate) fn figure(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    let decimals = match size {
        0.0 => 0,
        _ if size < 0.1 => 4,
        _ if size < 10.0 => 2,
        _ if size < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    if size < 1000.0 {
        return text;
    }
    let digits = text.trim_start_matches('-');
    let mut grouped = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_taken_of_the_sorted_values() {
        let odd: Series = [5.0, 1.0, 3.0].into_iter().collect();
        assert_eq!(odd.median().to_string(), "3");
        let even: Series = [4.0, 1.0, 3.0, 2.0].into_iter().collect();
        assert_eq!(even.median().to_string(), "2.5");
        let hundred: Series = (1..=100).rev().map(f64::from).collect();
        assert_eq!(hundred.percentile(99).to_string(), "99");
        assert_eq!(hundred.percentile(50).to_string(), "50");
        assert_eq!(hundred.spread(), "50.5 (1.00–100)");
    }

    #[test]
    fn figures_keep_about_three_digits() {
        let written: Vec<String> =
            [0.0, 0.01234, 1.234, 12.34, 123.4, 1234.5, 1_234_567.0, -1234.0, f64::NAN].map(figure).into();
        assert_eq!(written, ["0", "0.0123", "1.23", "12.3", "123", "1,234", "1,234,567", "-1,234", "–"]);
    }
}

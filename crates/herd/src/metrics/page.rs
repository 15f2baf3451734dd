//! The text format of Prometheus, version 0.0.4.
//!
//! The numbers are kept by those who count them and read when somebody asks, so there are no instruments to register; what
//! is left is this text, which is less than what a library would ask for.

use std::{
    fmt::{Display, Write as _},
    time::Duration,
};

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A label's name and value.
pub(super) type Label<'a> = (&'static str, &'a str);

/// The text that is made.
#[derive(Debug, Default)]
pub(super) struct Page(String);

/// One metric with its samples.
#[derive(Debug)]
pub(super) struct Family<'a> {
    page: &'a mut String,
    name: &'static str,
}

impl Page {
    pub(super) fn into_text(self) -> String {
        self.0
    }

    pub(super) fn counter(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, Kind::Counter, help).one(&[], value);
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help).one(&[], value);
    }

    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { page: &mut self.0, name }
    }
}

impl Family<'_> {
    /// Adds a sample.
    pub(super) fn one(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.sample("", labels, value);
    }

    /// Adds the samples of a histogram: how many took at most as long as each bound, how many there were, and how long all
    /// took together.
    pub(super) fn histogram(
        &mut self,
        labels: &[Label<'_>],
        buckets: impl Iterator<Item = (Duration, u64)>,
        count: u64,
        sum: Duration,
    ) {
        let mut bucket = |bound: &str, up_to| self.sample("_bucket", &[labels, &[("le", bound)]].concat(), up_to);
        for (bound, up_to) in buckets {
            bucket(&bound.as_secs_f64().to_string(), up_to);
        }
        bucket("+Inf", count);
        self.sample("_sum", labels, sum.as_secs_f64());
        self.sample("_count", labels, count);
    }

    fn sample(&mut self, suffix: &str, labels: &[Label<'_>], value: impl Display) {
        self.page.push_str(self.name);
        self.page.push_str(suffix);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.page.push(if index == 0 { '{' } else { ',' });
            self.page.push_str(label);
            self.page.push_str("=\"");
            escape(text, self.page);
            self.page.push('"');
        }
        if !labels.is_empty() {
            self.page.push('}');
        }
        let _ = writeln!(self.page, " {value}");
    }
}

fn escape(text: &str, page: &mut String) {
    for char in text.chars() {
        match char {
            '\\' => page.push_str("\\\\"),
            '"' => page.push_str("\\\""),
            '\n' => page.push_str("\\n"),
            other => page.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_cannot_end_their_line_or_their_quotes() {
        let mut page = Page::default();
        page.family("m", Kind::Gauge, "Help.").one(&[("a", "x\"} 1\n\\"), ("b", "y")], 2);
        assert_eq!(page.into_text(), "# HELP m Help.\n# TYPE m gauge\nm{a=\"x\\\"} 1\\n\\\\\",b=\"y\"} 2\n");
    }

    #[test]
    fn a_histogram_ends_with_all_there_were() {
        let mut page = Page::default();
        let buckets = [(Duration::from_micros(500), 1), (Duration::from_secs(60), 2)];
        let mut family = page.family("h_seconds", Kind::Histogram, "Help.");
        family.histogram(&[("pool", "p")], buckets.into_iter(), 3, Duration::from_millis(90_500));
        let text = page.into_text();
        let samples: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(
            samples,
            [
                "h_seconds_bucket{pool=\"p\",le=\"0.0005\"} 1",
                "h_seconds_bucket{pool=\"p\",le=\"60\"} 2",
                "h_seconds_bucket{pool=\"p\",le=\"+Inf\"} 3",
                "h_seconds_sum{pool=\"p\"} 90.5",
                "h_seconds_count{pool=\"p\"} 3",
            ]
        );
    }
}

//! Writes measurements down in the text format that Prometheus reads.
//!
//! Pure: it knows the format, not what is measured. Each metric is written in whole, with its help and its type; label
//! values are escaped, so a strange name can't forge a line.

use std::fmt::{Display, Write};

/// The format's name in HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of metrics.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// What goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.one(name, help, "gauge", value);
    }

    /// What only grows while the process lives.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.one(name, help, "counter", value);
    }

    /// One counter for each value of a label.
    pub fn counters<'a>(&mut self, name: &str, help: &str, label: &str, values: impl IntoIterator<Item = (&'a str, u64)>) {
        self.head(name, help, "counter");
        for (which, value) in values {
            self.line(format_args!("{name}{{{label}=\"{}\"}} {value}", escaped(which)));
        }
    }

    /// What only grows and isn't counted in whole ones.
    pub fn amount(&mut self, name: &str, help: &str, value: f64) {
        self.one(name, help, "counter", value);
    }

    /// One histogram for each value of a label. `bounds` are the upper ones, without the last, endless bucket; each row has
    /// the label's value, the count of each bucket alone (one more than bounds), and the sum.
    pub fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        bounds: &[f64],
        rows: impl IntoIterator<Item = (&'a str, Vec<u64>, f64)>,
    ) {
        self.head(name, help, "histogram");
        for (which, counts, sum) in rows {
            let which = escaped(which);
            let mut below = 0;
            let bounds = bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
            for (bound, count) in bounds.zip(counts) {
                below += count;
                self.line(format_args!("{name}_bucket{{{label}=\"{which}\",le=\"{bound}\"}} {below}"));
            }
            self.line(format_args!("{name}_sum{{{label}=\"{which}\"}} {sum}"));
            self.line(format_args!("{name}_count{{{label}=\"{which}\"}} {below}"));
        }
    }

    /// Facts that don't change, as labels of a gauge that is always 1.
    pub fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) {
        self.head(name, help, "gauge");
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        self.line(format_args!("{name}{{{}}} 1", labels.join(",")));
    }

    pub fn into_text(self) -> String {
        self.text
    }

    fn one(&mut self, name: &str, help: &str, kind: &str, value: impl Display) {
        self.head(name, help, kind);
        self.line(format_args!("{name} {value}"));
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String can't fail.
        let _ = writeln!(self.text, "{line}");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_has_its_help_and_type() {
        let mut page = Page::default();
        page.gauge("a_bytes", "Bytes.", 1.5);
        page.counters("b_total", "By kind.", "kind", [("x", 1), ("y", 2)]);
        page.info("c_info", "Facts.", &[("version", "1"), ("name", "a\"b\\\nc")]);
        let expected = "# HELP a_bytes Bytes.\n# TYPE a_bytes gauge\na_bytes 1.5\n\
            # HELP b_total By kind.\n# TYPE b_total counter\nb_total{kind=\"x\"} 1\nb_total{kind=\"y\"} 2\n\
            # HELP c_info Facts.\n# TYPE c_info gauge\nc_info{version=\"1\",name=\"a\\\"b\\\\\\nc\"} 1\n";
        assert_eq!(page.into_text(), expected);
    }
}

//! Just enough of the Prometheus text format (0.0.4) to find one series.

/// One line: a name, its labels and a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    pub(super) name: String,
    labels: Vec<(String, String)>,
    pub(super) value: f64,
}

impl Sample {
    /// The value of a label.
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }
}

/// Every sample of a page; lines that are none are passed over.
pub(super) fn samples(page: &str) -> impl Iterator<Item = Sample> {
    page.lines().filter_map(sample)
}

/// The breakers towards `peer` that are open, by name.
pub(super) fn open_breakers(page: &str, peer: u64) -> Vec<String> {
    let prefix = format!("peer/{peer}/");
    samples(page)
        .filter(|sample| sample.name == "seawall_circuit_breaker_state" && sample.value == 1.0)
        .filter(|sample| sample.label("state") == Some("open"))
        .filter_map(|sample| sample.label("name").map(str::to_owned))
        .filter(|name| name.starts_with(&prefix))
        .collect()
}

fn sample(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let (name, labels, value) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, value) = labels(rest)?;
            (name, labels, value)
        }
        None => {
            let (name, value) = line.split_once(char::is_whitespace)?;
            (name, Vec::new(), value)
        }
    };
    // A time stamp may follow.
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Labels up to the closing brace, and what follows it. A quoted value may hold any character.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(value) = rest.strip_prefix('}') {
            return Some((labels, value));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, char) => value.push(char),
            }
        };
        labels.push((name.trim().to_owned(), value));
        rest = quoted.get(end + 1..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"
# HELP seawall_circuit_breaker_state One for the state a breaker is in.
# TYPE seawall_circuit_breaker_state gauge
seawall_circuit_breaker_state{name="peer/1/append",state="open"} 1
seawall_circuit_breaker_state{name="peer/1/append",state="closed"} 0
seawall_circuit_breaker_state{name="peer/1/control",state="open"} 0
seawall_circuit_breaker_state{name="peer/11/append",state="open"} 1
seawall_kv_term 3 1700000000
odd{a="x\"}\\",b=""} 0.5
"#;

    #[test]
    fn the_open_breakers_of_a_peer_are_found() {
        assert_eq!(open_breakers(PAGE, 1), ["peer/1/append"]);
        assert_eq!(open_breakers(PAGE, 2), Vec::<String>::new());
    }

    #[test]
    fn labels_may_hold_quotes_and_braces() {
        let all: Vec<_> = samples(PAGE).collect();
        assert_eq!(all.len(), 6);
        assert_eq!(all[4].value, 3.0);
        assert_eq!(all[5].label("a"), Some("x\"}\\"));
        assert_eq!(all[5].label("b"), Some(""));
    }
}

//! The lines of a file, each checked; a bad one is named by line and field.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use bytes::Bytes;
use clap::ValueEnum;
use serde_json::Value as Json;

use crate::cli::CliError;
use crate::consensus::{Key, MAX_KEY_BYTES, MAX_VALUE_BYTES};

/// The longest line that can be good: key and value, where JSON may spell each byte as `\u00XX`, and the rest.
const MAX_LINE_BYTES: usize = 6 * (MAX_KEY_BYTES + MAX_VALUE_BYTES) + 1024;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Kind {
    /// One JSON object a line, with `key` and `value`; a value that is no string is stored as its JSON text.
    Jsonl,
    /// Rows of two columns (RFC 4180); a first row `key,value` is the heading.
    Csv,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Record {
    /// Where it begins, from 1.
    pub(in crate::cli) line: u64,
    pub(in crate::cli) key: Key,
    pub(in crate::cli) value: Bytes,
}

/// A file of lines.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Source {
    path: PathBuf,
    kind: Kind,
}

/// A line that is not what it should be.
#[derive(Debug, PartialEq, Eq)]
struct BadLine {
    line: u64,
    /// `key`, `value`, or `line` if it is not about one of them.
    field: String,
    detail: String,
}

impl Source {
    /// The file at `path`, written as `kind` or as its name says.
    pub(in crate::cli) fn new(path: PathBuf, kind: Option<Kind>) -> Result<Self, CliError> {
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        let kind = match (kind, extension.as_deref()) {
            (Some(kind), _) => kind,
            (None, Some("jsonl" | "ndjson" | "json")) => Kind::Jsonl,
            (None, Some("csv")) => Kind::Csv,
            (None, _) => {
                let path = path.display();
                return Err(CliError::Input(format!("{path}: neither .jsonl nor .csv; say --format jsonl or csv")));
            }
        };
        Ok(Self { path, kind })
    }

    /// Reads and checks every line, and returns how many there are.
    pub(in crate::cli) async fn check(&self) -> Result<u64, CliError> {
        let source = self.clone();
        let checked = tokio::task::spawn_blocking(move || source.for_each(|_| true));
        checked.await.map_err(|error| CliError::Input(format!("cannot read: {error}")))?
    }

    /// Gives every line to `take` until it returns false; returns how many it was given. Blocks on the file.
    pub(in crate::cli) fn for_each(&self, take: impl FnMut(Record) -> bool) -> Result<u64, CliError> {
        let open =
            || File::open(&self.path).map_err(|error| CliError::Input(format!("{}: {error}", self.path.display())));
        let lines = match self.kind {
            Kind::Jsonl => jsonl(BufReader::new(open()?), take),
            Kind::Csv => csv(open()?, take),
        };
        lines.map_err(|BadLine { line, field, detail }| {
            CliError::Input(format!("{}: line {line}: {field}: {detail}", self.path.display()))
        })
    }
}

fn jsonl(mut file: impl BufRead, mut take: impl FnMut(Record) -> bool) -> Result<u64, BadLine> {
    let mut text = Vec::new();
    for line in 1_u64.. {
        text.clear();
        let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
        let read = file.by_ref().take(limit).read_until(b'\n', &mut text);
        match read.map_err(|error| bad(line, "line", error))? {
            0 => return Ok(line - 1),
            MAX_LINE_BYTES => return Err(bad(line, "line", format!("longer than {MAX_LINE_BYTES} bytes"))),
            _ => {}
        }
        if !take(json_record(line, &text)?) {
            return Ok(line);
        }
    }
    Ok(u64::MAX)
}

fn json_record(line: u64, text: &[u8]) -> Result<Record, BadLine> {
    let object: serde_json::Map<String, Json> =
        serde_json::from_slice(text).map_err(|error| bad(line, "line", format!("no JSON object: {error}")))?;
    let (mut key, mut value) = (None, None);
    for (name, field) in object {
        match name.as_str() {
            "key" => key = Some(field),
            "value" => value = Some(field),
            _ => return Err(bad(line, &name, "there is no such field; a line has key and value")),
        }
    }
    let key = match key {
        Some(Json::String(key)) => key,
        Some(other) => return Err(bad(line, "key", format!("{other} is no string"))),
        None => return Err(bad(line, "key", "missing")),
    };
    let value = match value {
        Some(Json::String(value)) => value,
        Some(other) => other.to_string(),
        None => return Err(bad(line, "value", "missing")),
    };
    record(line, &key, value.into())
}

fn csv(file: impl Read, mut take: impl FnMut(Record) -> bool) -> Result<u64, BadLine> {
    let mut reader = ::csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(file);
    let mut row = ::csv::ByteRecord::new();
    let mut taken = 0;
    loop {
        let line = reader.position().line();
        match reader.read_byte_record(&mut row) {
            Ok(true) => {}
            Ok(false) => return Ok(taken),
            Err(error) => return Err(bad(line, "line", error)),
        }
        // The reader passes over empty lines by itself; the row knows where it began.
        let line = row.position().map_or(line, ::csv::Position::line);
        let (key, value) = match (row.get(0), row.get(1), row.len()) {
            (Some(key), Some(value), 2) => (key, value),
            (_, _, columns) => {
                return Err(bad(line, "line", format!("{columns} columns; a row has two, key and value")));
            }
        };
        if taken == 0 && line == 1 && key == b"key" && value == b"value" {
            continue;
        }
        let key = std::str::from_utf8(key).map_err(|error| bad(line, "key", error))?;
        let record = record(line, key, Bytes::copy_from_slice(value))?;
        taken += 1;
        if !take(record) {
            return Ok(taken);
        }
    }
}

fn record(line: u64, key: &str, value: Bytes) -> Result<Record, BadLine> {
    let key = Key::new(key).map_err(|error| bad(line, "key", error))?;
    if value.len() > MAX_VALUE_BYTES {
        return Err(bad(line, "value", format!("{} bytes; at most {MAX_VALUE_BYTES} are allowed", value.len())));
    }
    Ok(Record { line, key, value })
}

fn bad(line: u64, field: &str, detail: impl ToString) -> BadLine {
    BadLine { line, field: field.to_owned(), detail: detail.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, text: &str) -> Result<Vec<(u64, String, String)>, BadLine> {
        let mut records = Vec::new();
        let take = |record: Record| {
            let value = String::from_utf8(record.value.to_vec()).unwrap();
            records.push((record.line, record.key.to_string(), value));
            true
        };
        let taken = match kind {
            Kind::Jsonl => jsonl(text.as_bytes(), take),
            Kind::Csv => csv(text.as_bytes(), take),
        }?;
        assert_eq!(taken as usize, records.len());
        Ok(records)
    }

    fn complaint(kind: Kind, text: &str) -> (u64, String) {
        let BadLine { line, field, .. } = read(kind, text).unwrap_err();
        (line, field)
    }

    fn row(line: u64, key: &str, value: &str) -> (u64, String, String) {
        (line, key.to_owned(), value.to_owned())
    }

    #[test]
    fn json_lines_hold_any_value() {
        let text = "{\"key\":\"a\",\"value\":\"one\"}\n{\"value\":{\"n\":[1,2]},\"key\":\"b\"}\n{\"key\":\"c\",\"value\":null}";
        let rows = [row(1, "a", "one"), row(2, "b", "{\"n\":[1,2]}"), row(3, "c", "null")];
        assert_eq!(read(Kind::Jsonl, text).unwrap(), rows);
        assert_eq!(read(Kind::Jsonl, "").unwrap(), []);
    }

    #[test]
    fn csv_rows_may_have_a_heading_and_quoted_line_ends() {
        let rows = [row(2, "a", "one"), row(3, "b", "x\ny"), row(5, "c", "")];
        assert_eq!(read(Kind::Csv, "key,value\na,one\nb,\"x\ny\"\nc,\n").unwrap(), rows);
        assert_eq!(read(Kind::Csv, "a,one\n").unwrap(), [row(1, "a", "one")]);
    }

    #[test]
    fn a_bad_line_is_named_by_number_and_field() {
        let good = "{\"key\":\"a\",\"value\":\"1\"}\n";
        for (bad, field) in [
            ("{\"value\":\"1\"}", "key"),
            ("{\"key\":\"a\"}", "value"),
            ("{\"key\":7,\"value\":\"1\"}", "key"),
            ("{\"key\":\"\",\"value\":\"1\"}", "key"),
            ("{\"key\":\"a\\u0000\",\"value\":\"1\"}", "key"),
            ("{\"key\":\"a\",\"value\":\"1\",\"ttl\":3}", "ttl"),
            ("[1]", "line"),
            ("", "line"),
            ("{\"key\":", "line"),
        ] {
            assert_eq!(complaint(Kind::Jsonl, &format!("{good}{bad}\n{good}")), (2, field.to_owned()), "{bad}");
        }
        assert_eq!(complaint(Kind::Csv, "a,1\nb\n"), (2, "line".to_owned()));
        assert_eq!(complaint(Kind::Csv, "a,1\nb,2,3\n"), (2, "line".to_owned()));
        assert_eq!(complaint(Kind::Csv, "a,1\n,2\n"), (2, "key".to_owned()));
        let large = format!("a,{}\n", "v".repeat(MAX_VALUE_BYTES + 1));
        assert_eq!(complaint(Kind::Csv, &large), (1, "value".to_owned()));
    }

    #[test]
    fn the_name_says_how_a_file_is_written() {
        let kind = |name: &str, kind| Source::new(PathBuf::from(name), kind).map(|source| source.kind).ok();
        assert_eq!(kind("a.jsonl", None), Some(Kind::Jsonl));
        assert_eq!(kind("a.CSV", None), Some(Kind::Csv));
        assert_eq!(kind("a.txt", None), None);
        assert_eq!(kind("a.txt", Some(Kind::Csv)), Some(Kind::Csv));
    }
}

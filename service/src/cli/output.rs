//! Results on standard output, as text for people or as one JSON object a line for programs.

use std::io::{ErrorKind, Write};

use clap::ValueEnum;
use serde_json::{Value as Json, json};

use crate::cli::CliError;
use crate::client::Value;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Where results go.
pub(super) struct Output {
    format: Format,
    to: Box<dyn Write>,
}

impl Output {
    /// Standard output.
    pub(super) fn stdout(format: Format) -> Self {
        Self { format, to: Box::new(std::io::stdout()) }
    }

    /// Writes one result: `text` as it is and a line end, or `json` on a line.
    pub(super) fn result(&mut self, text: impl AsRef<[u8]>, json: impl FnOnce() -> Json) -> Result<(), CliError> {
        let mut line = match self.format {
            Format::Text => text.as_ref().to_vec(),
            Format::Json => json().to_string().into_bytes(),
        };
        line.push(b'\n');
        // One write: a line is never torn by another process on the same terminal.
        match self.to.write_all(&line).and_then(|()| self.to.flush()) {
            // Whoever reads has seen enough, as `head` does; what was asked for is done all the same.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(CliError::io("cannot write to standard output")),
        }
    }
}

/// A value in JSON: as `value` if it is text, else as `value_base64`.
pub(super) fn value_json(key: &str, value: &Value) -> Json {
    let mut object = json!({ "key": key, "revision": value.revision });
    match std::str::from_utf8(&value.value) {
        Ok(text) => object["value"] = text.into(),
        Err(_) => object["value_base64"] = base64(&value.value).into(),
    }
    if let Some(revision) = value.create_revision {
        object["create_revision"] = revision.into();
    }
    object
}

/// RFC 4648 §4, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            // A chunk of n bytes fills n + 1 characters.
            if place > chunk.len() {
                text.push('=');
            } else {
                let index = (word >> (18 - 6 * place)) & 63;
                text.push(char::from(ALPHABET[index as usize]));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn base64_as_in_the_rfc() {
        let table =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (bytes, text) in table {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xbf]), "+/+/");
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure_but_a_full_disk_is() {
        struct Broken(ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let write = |kind| Output { format: Format::Text, to: Box::new(Broken(kind)) }.result("x", || json!({}));
        assert!(write(ErrorKind::BrokenPipe).is_ok());
        assert!(matches!(write(ErrorKind::StorageFull), Err(CliError::Io { .. })));
    }

    #[test]
    fn a_value_that_is_no_text_is_shown_in_base64() {
        let value =
            |bytes: &'static [u8]| Value { value: Bytes::from_static(bytes), revision: 7, create_revision: None };
        assert_eq!(value_json("k", &value(b"text")), json!({ "key": "k", "revision": 7, "value": "text" }));
        assert_eq!(value_json("k", &value(&[0xff])), json!({ "key": "k", "revision": 7, "value_base64": "/w==" }));
    }
}

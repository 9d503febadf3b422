//! HTTP/1.1 as plain as it gets, for requests that the client library is too polite to send.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// No answer of a node takes longer: its own default deadline is 5 s.
const LIMIT: Duration = Duration::from_secs(15);

/// A request; each is sent over a connection of its own.
#[derive(Debug, Clone)]
pub struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    limit: Duration,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum SendError {
    /// There was no connection: the node has not seen a byte.
    NotSent(io::Error),
    /// There was a connection, and no answer came over it.
    Broken(io::Error),
    /// Nothing came within the limit: the node hangs.
    TimedOut(Duration),
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// It was acknowledged with this revision.
    Done(u64),
    /// Its condition did not hold.
    ConditionFailed,
    /// It certainly did not happen, and will not.
    NotApplied,
    /// It may have happened.
    Unknown,
}

impl Request {
    /// A request without body.
    pub fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: Vec::new(), limit: LIMIT }
    }

    /// `GET`.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }

    /// `PUT` with a body.
    pub fn put(path: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self::new("PUT", path).body(body)
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// With `X-Seawall-Deadline-Ms`.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        self.header("X-Seawall-Deadline-Ms", deadline.as_millis())
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Errors
    ///
    /// There is none; the three cases are kept apart.
    pub async fn send(&self, to: SocketAddr) -> Result<Answer, SendError> {
        let stream = match tokio::time::timeout(self.limit, TcpStream::connect(to)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(SendError::NotSent(error)),
            Err(_) => return Err(SendError::TimedOut(self.limit)),
        };
        match tokio::time::timeout(self.limit, self.exchange(stream, to)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(SendError::Broken(error)),
            Err(_) => Err(SendError::TimedOut(self.limit)),
        }
    }

    async fn exchange(&self, stream: TcpStream, to: SocketAddr) -> io::Result<Answer> {
        stream.set_nodelay(true)?;
        let (mut read, mut write) = stream.into_split();
        let mut bytes = format!("{} {} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        bytes.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        let mut bytes = bytes.into_bytes();
        bytes.extend_from_slice(&self.body);
        // A node may refuse before it has read everything; what it said then still counts.
        let send = async {
            let _ = write.write_all(&bytes).await;
        };
        let receive = async {
            let mut answer = Vec::new();
            let end = read.read_to_end(&mut answer).await;
            parse(&answer).ok_or_else(|| {
                end.err().unwrap_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the answer broke off"))
            })
        };
        tokio::join!(send, receive).1
    }
}

/// A complete answer, or nothing.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let body = bytes.get(end + 4..)?.to_vec();
    let answer = Answer { status, headers, body };
    match answer.header("content-length") {
        Some(length) if length.parse() != Ok(answer.body.len()) => None,
        Some(_) => Some(answer),
        None if answer.status == 304 => Some(answer), // never has a body
        None => unchunk(&answer.body).map(|body| Answer { body, ..answer }),
    }
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
        rest = rest.get(line + 2..)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

impl Answer {
    /// The header of that name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The `ETag` as a revision.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn revision(&self) -> u64 {
        let tag = self.header("etag").and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok());
        tag.unwrap_or_else(|| panic!("no revision in {self:?}"))
    }

    /// The body of an error, which must be a problem with this status.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub fn problem(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}: {}", self.status, self.text());
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        for field in ["type", "title", "detail"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {problem}");
        }
        problem
    }
}

impl Write {
    /// What the answer to a write, or its absence, says.
    ///
    /// # Panics
    ///
    /// On an answer that no write may have.
    pub fn from_answer(result: &Result<Answer, SendError>) -> Self {
        let answer = match result {
            Ok(answer) => answer,
            Err(SendError::NotSent(_)) => return Self::NotApplied,
            Err(SendError::Broken(_)) => return Self::Unknown,
            Err(SendError::TimedOut(limit)) => panic!("a write was not answered within {limit:?}"),
        };
        match answer.status {
            200 | 201 => Self::Done(answer.json()["revision"].as_u64().unwrap()),
            412 => Self::ConditionFailed,
            429 | 503 => match answer.problem()["outcome"].as_str() {
                Some("not_applied") => Self::NotApplied,
                Some("unknown") => Self::Unknown,
                other => panic!("a failed write must say its outcome, not {other:?}"),
            },
            _ => panic!("no answer to a write: {} {}", answer.status, answer.text()),
        }
    }
}

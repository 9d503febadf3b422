//! The program under test, run to its end or in the background.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually;

/// Lines of a process's log that are shown when a test fails.
const SHOWN_LINES: usize = 60;

/// How long a command may take that ends by itself.
const RUN_LIMIT: Duration = Duration::from_secs(30);

/// The binary under test: built with the tests, or what `SEAWALL_KV_BINARY` names (an optimised build in CI).
///
/// # Panics
///
/// When it is not there.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SEAWALL_KV_BINARY") {
        // A test runs in its package's folder; the variable was written at the root.
        let path = PathBuf::from(path);
        return if path.is_absolute() { path } else { Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path) };
    }
    // target/<profile>/deps/<test> → target/<profile>/<binary>: cargo builds a package's binaries before its tests.
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let path = profile.join(format!("seawall-kv-under-test{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is built by `cargo test -p seawall-tests`", path.display());
    path
}

/// Says something on standard error even where the test runner keeps output to itself.
pub fn say(line: &str) {
    // Unlike `eprintln!`, this is not captured.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// Runs the binary with these arguments to its end, which must come within half a minute.
///
/// # Panics
///
/// When it does not end, or not with a code.
pub async fn run<A: AsRef<str>>(args: impl IntoIterator<Item = A>) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::new("command", dir.path(), binary());
    process.args = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
    process.spawn();
    let status = process.ended_within(RUN_LIMIT).await;
    let code = status.code().unwrap_or_else(|| panic!("ended by a signal: {status}"));
    Output { code, stdout: process.stdout(), stderr: process.log() }
}

/// A process of this test; it does not outlive it.
#[derive(Debug)]
pub struct Process {
    name: String,
    program: PathBuf,
    log: PathBuf,
    stdout: PathBuf,
    child: Option<Child>,
    /// Its arguments at the next start.
    pub args: Vec<String>,
}

impl Process {
    /// A process that is not started yet; what it prints goes to files in `dir`.
    pub fn new(name: &str, dir: &Path, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            log: dir.join(format!("{name}.stderr")),
            stdout: dir.join(format!("{name}.stdout")),
            child: None,
            args: Vec::new(),
        }
    }

    /// Starts it. What it prints is added to what an earlier run printed.
    ///
    /// # Panics
    ///
    /// When it runs already or cannot be started.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let file = |path: &Path| Stdio::from(File::options().create(true).append(true).open(path).unwrap());
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SEAWALL_") {
                command.env_remove(name); // flags come from the test alone
            }
        }
        command.args(&self.args).stdin(Stdio::piped()).stdout(file(&self.stdout)).stderr(file(&self.log));
        self.child = Some(command.spawn().unwrap());
    }

    /// Whether it was started and has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// When it was not started.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill(); // it may have ended by itself
            child.wait().unwrap();
        }
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    ///
    /// When it does not, or was not started.
    pub async fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        let child = self.child.as_mut().expect("it runs");
        let ended = async || child.try_wait().unwrap().ok_or_else(|| "it still runs".to_owned());
        let status = eventually(&what, limit, ended).await;
        self.child = None;
        status
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().unwrap())
    }

    /// Everything it wrote to standard error so far.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// Everything it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default();
            eprintln!("---- the last lines of {} ({:?})\n{}", self.name, self.args.join(" "), shown.join("\n"));
        }
        self.kill();
    }
}

fn read(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Every file below `path` with its bytes; folders end in `/`.
///
/// # Panics
///
/// When something cannot be read.
pub fn snapshot_of(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            files.insert(path.join(""), Vec::new());
        } else if path.exists() {
            let bytes = std::fs::read(&path).unwrap();
            files.insert(path, bytes);
        }
    }
    files
}

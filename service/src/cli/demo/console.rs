//! What the demo says, in colours where there is a terminal.

use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Standard output with headings and marks.
pub(super) struct Console {
    to: Box<dyn Write>,
    colours: bool,
    step: usize,
}

/// ANSI colours (ECMA-48 §8.3.117), as the number of the code.
#[derive(Debug, Clone, Copy)]
enum Colour {
    Bold = 1,
    Green = 32,
    Red = 31,
}

impl Console {
    /// Standard output; plain where it is no terminal or `NO_COLOR` is set.
    pub(super) fn stdout() -> Self {
        let out = std::io::stdout();
        let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self::new(Box::new(out), colours)
    }

    fn new(to: Box<dyn Write>, colours: bool) -> Self {
        Self { to, colours, step: 0 }
    }

    /// A line as it is.
    pub(super) fn line(&mut self, text: &str) {
        // Nobody reads any more; the cluster is still to be stopped in order.
        let _ = writeln!(self.to, "{text}").and_then(|()| self.to.flush());
    }

    /// The heading of the next step.
    pub(super) fn heading(&mut self, title: &str) {
        self.step += 1;
        let heading = self.coloured(Colour::Bold, &format!("{}. {title}", self.step));
        self.line(&format!("\n{heading}"));
    }

    /// Something that turned out as it should, and when.
    pub(super) fn good(&mut self, text: &str, after: Duration) {
        let mark = self.coloured(Colour::Green, "✓");
        self.line(&format!("   {mark} {text} ({})", time(after)));
    }

    /// Something that did not.
    pub(super) fn bad(&mut self, text: &str, after: Duration) {
        let mark = self.coloured(Colour::Red, "✗");
        self.line(&format!("   {mark} {text} ({})", time(after)));
    }

    /// What is going on.
    pub(super) fn note(&mut self, text: &str) {
        self.line(&format!("     {text}"));
    }

    fn coloured(&self, colour: Colour, text: &str) -> String {
        if self.colours { format!("\x1b[{}m{text}\x1b[0m", colour as u8) } else { text.to_owned() }
    }
}

/// A time as people say it.
pub(super) fn time(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn said(colours: bool) -> String {
        let paper = Paper::default();
        let mut console = Console::new(Box::new(paper.clone()), colours);
        console.heading("First");
        console.good("done", Duration::from_millis(12));
        console.bad("not done", Duration::from_millis(1500));
        let bytes = paper.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn colours_only_where_asked_for() {
        assert_eq!(said(false), "\n1. First\n   ✓ done (12 ms)\n   ✗ not done (1.50 s)\n");
        assert!(said(true).contains("\x1b[32m✓\x1b[0m"));
    }
}

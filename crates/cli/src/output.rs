//! Text to the outside. A reader that goes away (`edgekeep ... | head`) is no reason to panic.

use std::io::{IsTerminal, Write};

/// One line, or several, to standard output.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", text.trim_end());
    let _ = out.flush();
}

/// To standard error.
pub(crate) fn error(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// To standard error, with no end of line: something is to be typed behind it.
pub(crate) fn prompt(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = write!(out, "{text}");
    let _ = out.flush();
}

/// Whether somebody can be asked and shown something.
pub(crate) fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Shows a recovery key to whoever sits at the terminal, once.
///
/// # Errors
/// If nobody does.
pub(crate) fn show_recovery_key(key: &str) -> std::io::Result<()> {
    // To the terminal itself and never to a log: standard error may be a file, or a journal that is sent away.
    let mut terminal = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    if !terminal.is_terminal() {
        return Err(std::io::Error::other("/dev/tty is no terminal"));
    }
    writeln!(terminal, "The recovery key of this device, shown this once. Write it down and keep it elsewhere:\n")?;
    writeln!(terminal, "  {key}\n")?;
    terminal.flush()
}

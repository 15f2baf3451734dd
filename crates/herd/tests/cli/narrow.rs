//! What is printed on a narrow terminal.

use crate::{
    client::eval,
    daemon::{Daemon, eventually, herd},
    sandbox::file,
    terminal::Terminal,
};

const HERD: &str = env!("CARGO_BIN_EXE_herd");
const COLUMNS: usize = 40;

/// What a command prints on a terminal of forty columns.
fn printed(daemon: &Daemon, args: &str) -> String {
    let script = format!("stty cols {COLUMNS} && exec {HERD} {args}");
    let mut like = herd(&[], daemon.directory());
    like.env("HERD_SOCKET", &daemon.socket);
    let mut terminal = Terminal::start(&["sh", "-c", &script], &like);
    terminal.wait();
    let written = String::from_utf8(std::mem::take(&mut terminal.written)).unwrap();
    let text = anstream::adapter::strip_str(&written).to_string();
    assert!(!text.trim().is_empty(), "{args}");
    text.replace('\r', "")
}

/// Where a line is too long, the terminal breaks it in the middle of a word. A word that has no room on any line may be,
/// and clap never breaks how a command is used.
#[track_caller]
fn check_width(args: &str, text: &str) {
    let lines = text.lines().filter(|line| !line.starts_with("Usage: "));
    for line in lines.filter(|line| line.chars().count() > COLUMNS) {
        assert_eq!(line.split_whitespace().count(), 1, "{args}: {line:?}\n{text}");
    }
}

#[test]
fn no_command_breaks_words_on_a_terminal_of_forty_columns() {
    let (_directory, config) = file(
        "pools:\n  fine: {}\n  broken: {worker: {command: ['sh', '-c', 'echo there is no license for it >&2; exit 3']}}\nroutes: [{pool: fine}]\n",
    );
    let daemon = Daemon::serve(&["--config", &config]);
    eval(daemon.gateway, "alice", "1");
    eventually(|| String::from_utf8(daemon.command(&["ps"]).stdout).unwrap().contains("no license"));
    for args in ["ps", "stats", "events", "doctor"] {
        let text = printed(&daemon, args);
        check_width(args, &text);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let expected = match args {
            "doctor" => "PID namespace",
            _ => "there is no license",
        };
        assert!(words.contains(expected), "{args}: {text}");
    }
}

#[test]
fn help_fits_a_terminal_of_forty_columns() {
    let daemon = Daemon::repl();
    for args in ["--help", "run --help", "exec --help", "top --help", "man --help", "completions --help"] {
        let text = printed(&daemon, args);
        check_width(args, &text);
        // An example of one word a line is none.
        let lonely = text.lines().skip_while(|line| !line.starts_with("Examples")).skip(1);
        let lonely = lonely.filter(|line| line.starts_with("            ")).count();
        assert_eq!(lonely, 0, "{args}: {text}");
    }
}

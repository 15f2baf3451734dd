//! What `${VAR}`, `${VAR:-default}` and `${file:/path}` mean, and that nobody is told what came out of them.

use std::{ffi::OsString, fs, io::Write as _, os::unix::ffi::OsStringExt as _};

use super::*;
use crate::config::raw::Raw;

/// Reads `text` where `variables` are set.
fn read(text: &str, mode: Mode, variables: &[(&str, &str)]) -> (Raw, Mistakes) {
    let mut mistakes = Mistakes::of_file("herd.yaml");
    let find = |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| OsString::from(*value));
    let raw = file::read(text.as_bytes(), mode, &find, &mut mistakes);
    (raw, mistakes)
}

#[track_caller]
fn filled(text: &str, variables: &[(&str, &str)]) -> Settings {
    let (raw, mistakes) = read(text, Mode::Serve, variables);
    settle(raw, mistakes).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

#[test]
fn variables_are_filled_in_and_typed_as_if_they_were_written() {
    let settings = filled(
        r#"
network: {data_bind: "${HOST:-127.0.0.1}:${PORT}"}
worker:
  command: [server, "${FLAG}", "${EMPTY:-by default}", "a${EMPTY}b", ${PORT}]
resources:
  max_workers: ${MOST}
  min_workers: "${FEWEST:-3}"
  max_lifetime: ${NOTHING:-null}
  worker_reuse: ${REUSE}
"#
        .replace(", ${PORT}]", ", \"${PORT}\"]")
        .as_str(),
        &[("PORT", "9000"), ("FLAG", "--x"), ("EMPTY", ""), ("MOST", "4"), ("REUSE", "true")],
    );
    assert_eq!(settings.network.data_bind.to_string(), "127.0.0.1:9000");
    let args = ["--x", "by default", "ab", "9000"].map(Into::into).to_vec();
    assert!(settings.pools[0].worker.command == Command::Program { program: "server".into(), args });
    let resources = &settings.pools[0].resources;
    assert_eq!((resources.min_workers, resources.max_workers), (3, 4));
    assert_eq!((resources.max_lifetime, resources.worker_reuse), (None, true));
}

#[test]
fn a_value_never_changes_the_structure_of_the_document() {
    let evil = "a]\nresources: {max_workers: 1}\n# \"', {x: y}";
    let settings = filled("worker: {command: [x, \"${EVIL}\"], env: ['A=${EVIL}']}", &[("EVIL", evil)]);
    assert!(settings.pools[0].worker.command == Command::Program { program: "x".into(), args: vec![evil.into()] });
    assert!(settings.pools[0].worker.env == [("A".to_owned(), evil.to_owned())]);
    assert_eq!(settings.pools[0].resources.max_workers, 10);
    let settings = filled("worker: {command: [x, \"${A}\"]}", &[("A", "${B} $${C} *x &y !z")]);
    let args = vec!["${B} $${C} *x &y !z".into()];
    assert!(settings.pools[0].worker.command == Command::Program { program: "x".into(), args }, "filled in twice");
}

#[test]
fn other_dollars_stay_as_they_are() {
    let text = r#"worker: {command: [sh, -c, "echo $PORT $(x) $$ $${A} $$${A} {{.Port}} $"]}"#;
    let settings = filled(text, &[("A", "b")]);
    let args = vec!["-c".into(), "echo $PORT $(x) $$ ${A} $${A} {{.Port}} $".into()];
    assert!(settings.pools[0].worker.command == Command::Program { program: "sh".into(), args });
}

#[test]
fn a_file_stands_for_its_text_without_the_last_line_break() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let command = |name: &str| format!("worker: {{command: [x, '${{file:{}}}']}}", path(name));
    for (name, content, expected) in
        [("a", "token\n", "token"), ("b", "token\r\n", "token"), ("c", "two\nlines\n\n", "two\nlines\n"), ("d", "", "")]
    {
        fs::write(path(name), content).unwrap();
        let settings = filled(&command(name), &[]);
        let expected = Command::Program { program: "x".into(), args: vec![expected.into()] };
        assert!(settings.pools[0].worker.command == expected, "{name}");
    }
    fs::write(path("large"), vec![b'x'; (64 << 10) + 1]).unwrap();
    fs::write(path("binary"), b"\xff").unwrap();
    // Nobody writes into it: whoever opened it to read would wait.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    for (name, problem) in [
        ("large", "names a file that has more than 65536 bytes"),
        ("binary", "names a file that is no UTF-8 text"),
        ("pipe", "names a file that is no regular file"),
        (".", "names a file that is no regular file"),
        ("none", "names a file that cannot be read: No such file"),
    ] {
        let found = complaints(&command(name));
        assert!(found.starts_with("herd.yaml:1:23: worker.command[1]: `${file:") && found.contains(problem), "{found}");
    }
    let mut file = fs::File::create(path("most")).unwrap();
    file.write_all(&[b'x'; 64 << 10]).unwrap();
    let many = format!("worker: {{command: [{}]}}", vec![format!("'${{file:{}}}'", path("most")); 17].join(", "));
    assert!(complaints(&many).contains("worker.command[16]: `${file:"), "what files add has no bound");
}

#[test]
fn a_variable_that_is_no_text_is_a_mistake() {
    let mut mistakes = Mistakes::of_file("herd.yaml");
    let bytes = |_: &str| Some(OsString::from_vec(vec![0xff]));
    file::read(b"worker: {cwd: '${A}'}", Mode::Serve, &bytes, &mut mistakes);
    let found = mistakes.to_string();
    assert!(found.contains("1:15: worker.cwd: `${A}` needs the environment variable A, which is no UTF-8"), "{found}");
}

#[test]
fn herd_start_leaves_texts_as_they_are() {
    let text = "worker: {command: [x, '${A}', '${'], env: ['A=${file:/nowhere}']}";
    let (raw, mistakes) = read(text, Mode::Start, &[("A", "b")]);
    let settings = settle(raw, mistakes).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let args = vec!["${A}".into(), "${".into()];
    assert!(settings.pools[0].worker.command == Command::Program { program: "x".into(), args });
    assert!(settings.pools[0].worker.env == [("A".to_owned(), "${file:/nowhere}".to_owned())]);
}

#[test]
fn herd_start_says_that_it_fills_nothing_in_where_that_is_the_matter() {
    let said = |text: &str| {
        let (raw, mistakes) = read(text, Mode::Start, &[("A", "127.0.0.1:80")]);
        settle(raw, mistakes).unwrap_err().to_string()
    };
    let explained = "`herd start` does not fill in variables and files";
    assert!(said("network: {data_bind: '${A}'}").contains(explained));
    assert!(!said("network: {data_bind: 'A'}").contains(explained));
}

#[test]
fn a_key_with_a_variable_is_said_not_to_be_filled_in() {
    let (raw, mistakes) = read("network:\n  ${A}: 1\n", Mode::Serve, &[("A", "threads")]);
    let said = settle(raw, mistakes).unwrap_err().to_string();
    assert!(
        said.contains("herd.yaml:2:3: `${A}` has a `${`, and keys are not filled in; write the key itself"),
        "{said}"
    );
}

#[test]
fn herd_start_only_looks_sessions_up_and_has_no_admin_address_unless_it_is_named() {
    let start = |text: &str| {
        let (raw, mistakes) = read(text, Mode::Start, &[]);
        settle(raw, mistakes)
    };
    let settings = start("resources: {max_workers: 3}").unwrap();
    assert!(settings.network.lookup_only && settings.network.admin_bind.is_none());
    let settings = start("network: {admin_bind: 127.0.0.1:9000, lookup_only: true}").unwrap();
    assert!(settings.network.lookup_only && settings.network.admin_bind.is_some());
    let found = start("network: {lookup_only: false}").unwrap_err().to_string();
    assert!(found.contains("1:24: network.lookup_only: `false` contradicts `herd start`"), "{found}");
}

/// Everything that anybody could be told of this.
fn told(text: &str, variables: &[(&str, &str)]) -> String {
    let (raw, mistakes) = read(text, Mode::Serve, variables);
    let mut told = format!("{raw:?} {mistakes:?}");
    match settle(raw, mistakes) {
        Ok(settings) => told += &format!("{settings:?} {:?} {:?}", settings.warnings(), settings.pools),
        Err(mistakes) => told += &format!("{mistakes} {} {mistakes:?}", mistakes.to_json()),
    }
    told
}

#[test]
fn what_came_out_of_a_variable_is_never_told() {
    // Each is right somewhere, and wrong elsewhere in a way of its own.
    let secrets = [
        "hush",
        "/hush",
        "/hush/",
        ":hush",
        "hush:80",
        "{{.hush}}",
        "hush=hush",
        "hu-sh=hush",
        "*.hush",
        "a.*.hush",
        "http://hush@hush/hush",
        "ftp://hush/hush",
        "http://hush/hush",
        "stdout:(hush",
        "stdout:hush\n(",
        "command:hush; hush",
        "header:hush hush",
        "query:hush",
        "hush hush",
        "/proc/hush",
        "/x/../hush",
        "X-Hush=hu\nsh",
    ];
    let keys = keys();
    assert!(keys.len() > 90, "{keys:?}");
    for key in &keys {
        for secret in secrets {
            for form in ["${A}", "x${A}", "${B:-y}${A}"] {
                let text = schema::document(key, &format!("\"{form}\""));
                let told = told(&text, &[("A", secret)]);
                assert!(!told.to_ascii_lowercase().contains("hush"), "{text}\n{told}");
            }
        }
    }
}

#[test]
fn numbers_that_came_out_of_variables_are_not_told_by_other_keys() {
    let variables = [("A", "7777"), ("B", "8888"), ("P", "127.0.0.1:7777"), ("R", "70000-77777"), ("W", "/h7777")];
    for text in [
        "resources: {max_workers: '${A}', min_workers: 8889, spare: '${B}'}",
        "resources: {max_workers: '${B}'}\nsandbox: {uid_range: '${R}'}",
        "network: {data_bind: '${P}', admin_bind: '${P}'}",
        "network: {admin_bind: '${P}', data_bind: '127.0.0.1:${A}'}",
        "network: {threads: '${A}'}",
        "sandbox: {read_only: ['${W}', '${W}'], hidden: ['${W}']}",
        "sandbox: {workspace: persistent}\nresources: {min_workers: '${A}'}",
        "network: {tls: {cert_file: /c, key_file: '${W}/k'}}\nsandbox: {read_only: ['${W}']}",
    ] {
        let (raw, mistakes) = read(text, Mode::Serve, &variables);
        let found = settle(raw, mistakes).unwrap_err().to_string();
        assert!(!found.contains("7777") && !found.contains("8888"), "{text}\n{found}");
    }
}

proptest! {
    #[test]
    fn no_text_with_dollars_makes_it_panic(
        text in r"[$\{\}:a-c/ ~-]{0,40}",
        value in "\\PC{0,12}",
        key in prop::sample::select(vec![("worker", "health_path"), ("resources", "ttl"), ("network", "threads")]),
    ) {
        let (section, name) = key;
        let text = format!("{section}:\n  {name}: '{text}'\n");
        let (raw, mistakes) = read(&text, Mode::Serve, &[("a", value.as_str()), ("b", "")]);
        if let Err(mistakes) = settle(raw, mistakes) {
            prop_assert!(mistakes.all.iter().all(|mistake| mistake.origin.position.is_some()), "{mistakes}");
        }
    }
}

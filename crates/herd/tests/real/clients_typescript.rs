use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{daemon::HERD, playwright::browsers, provided};

/// Playwright of npm is not the client's business, so it comes from elsewhere.
const RENDER: &str = r#"
const [gateway, nodeModules] = process.argv.slice(1);
const { chromium } = require(`${nodeModules}/playwright-core`);
const launch = { channel: "chrome", args: ["--no-sandbox", "--no-first-run", "--disable-background-networking"] };
(async () => {
  const { Herd } = await import("./dist/index.js");
  const { withBrowser } = await import("./build/examples/playwright.js");
  const render = async (browser) => {
    const page = await browser.newPage();
    await page.setContent("<p id=p></p><script>document.getElementById('p').textContent = 'rendered ' + 6 * 7</script>");
    return await page.textContent("p");
  };
  const headers = { "x-playwright-launch-options": JSON.stringify(launch) };
  const text = await withBrowser(new Herd({ gateway }), chromium, render, headers);
  if (text !== "rendered 42") throw new Error(text);
})();
"#;

/// The client's directory in the repository.
fn client() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients/typescript")
}

/// A copy of the client that can be built in, beside what npm has installed for it.
fn copy() -> TempDir {
    let node_modules = provided("HERD_TEST_TYPESCRIPT");
    let directory = tempfile::tempdir().unwrap();
    for name in ["LICENSE", "README.md", "package.json", "tsconfig.json"] {
        fs::copy(client().join(name), directory.path().join(name)).unwrap();
    }
    for name in ["examples", "src", "test"] {
        let copy = directory.path().join(name);
        fs::create_dir(&copy).unwrap();
        for file in fs::read_dir(client().join(name)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
    }
    symlink(node_modules, directory.path().join("node_modules")).unwrap();
    directory
}

/// Builds one of the client's parts.
fn build(directory: &TempDir, project: &str) {
    run_node(directory, &["node_modules/typescript/bin/tsc", "--project", project]);
}

/// Runs `node` there. What it says is shown if the test fails.
fn run_node(directory: &TempDir, arguments: &[&str]) {
    let mut node = Command::new("node");
    let node = node.args(arguments).current_dir(directory.path()).env("HERD", HERD).output().expect("node starts");
    let said = [node.stdout, node.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(node.status.success(), "node {arguments:?}: {}\n{said}", node.status);
}

/// Builds the client, its tests and its examples, and runs these tests: those of one file of `clients/typescript/test`.
fn test(file: &str) {
    let directory = copy();
    for project in ["tsconfig.json", "examples/tsconfig.node.json", "test/tsconfig.json"] {
        build(&directory, project);
    }
    let file = format!("build/test/{file}.test.js");
    // A test that fails may leave connections open, and must not wait for them.
    run_node(&directory, &["--test", "--test-force-exit", "--test-timeout=120000", &file]);
}

#[test]
fn the_typescript_client_finds_its_addresses() {
    test("addresses");
}

#[test]
fn the_typescript_client_has_sessions_of_a_real_daemon() {
    test("session");
}

#[test]
fn the_typescript_client_ends_what_a_late_first_request_begins() {
    test("late");
}

#[test]
fn the_typescript_client_tells_errors_of_a_real_daemon_apart() {
    test("errors");
}

#[test]
fn the_typescript_client_is_not_fooled_by_strangers() {
    test("strangers");
}

#[test]
fn the_typescript_client_serves_websockets() {
    test("websocket");
}

#[test]
fn the_typescript_client_is_packed_installed_and_its_examples_run() {
    test("package");
}

#[test]
fn the_typescript_clients_types_are_whole_in_a_browser_without_those_of_node() {
    let directory = copy();
    build(&directory, "tsconfig.json");
    build(&directory, "examples/tsconfig.browser.json");
}

#[tokio::test]
async fn playwright_of_npm_renders_in_a_session_of_the_typescript_client() {
    let directory = copy();
    build(&directory, "tsconfig.json");
    build(&directory, "examples/tsconfig.node.json");
    let node_modules = provided("HERD_TEST_NODE_MODULES");
    let daemon = browsers(&[]);
    let gateway = format!("http://{}", daemon.gateway.0);
    run_node(&directory, &["-e", RENDER, &gateway, node_modules.to_str().unwrap()]);
    assert_eq!(daemon.admin("/v1/sessions").await["items"], serde_json::json!([]), "the session ended with its block");
}

#[test]
fn the_typescript_client_has_no_dependencies_and_its_lock_file_names_no_registry() {
    let package: serde_json::Value = serde_json::from_slice(&fs::read(client().join("package.json")).unwrap()).unwrap();
    for kind in ["dependencies", "peerDependencies", "optionalDependencies"] {
        assert!(package[kind].is_null(), "{kind}: {}", package[kind]);
    }
    assert_eq!(package["version"], env!("CARGO_PKG_VERSION"), "clients have the version of herd");
    let lock = fs::read_to_string(client().join("package-lock.json")).unwrap();
    assert!(!lock.contains("\"resolved\"") && !lock.contains("://"), "npm writes none with the client's .npmrc");
}

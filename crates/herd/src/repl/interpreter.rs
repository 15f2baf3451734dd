use std::{
    cell::RefCell,
    collections::HashSet,
    rc::Rc,
    sync::mpsc::{self, TryRecvError},
    time::Duration,
};

use rhai::{
    AST, Dynamic, Engine, EvalAltResult, FLOAT, INT, Position, Scope,
    module_resolvers::DummyModuleResolver,
    packages::{Package as _, StandardPackage},
};

use super::{MAX_SCRIPT, evaluator::Client};

/// What a script printed and its value, or why it failed after what it printed; one item per line.
pub(super) type Answer = Result<String, String>;

/// The longest string, in bytes, and the most that one script may print.
const MAX_STRING: usize = MAX_SCRIPT;
/// The engine counts all items again after every change, so the limit bounds time as well.
const MAX_ARRAY: usize = 10_000;
const MAX_MAP: usize = 10_000;
const MAX_VARIABLES: usize = 1_024;
const MAX_FUNCTIONS: usize = 1_024;
const MAX_CALL_LEVELS: usize = 64;
const MAX_EXPRESSION_DEPTH: usize = 64;
const MAX_EXPRESSION_DEPTH_IN_FUNCTION: usize = 32;

/// How many operations a script does between two looks at whether it should go on: some microseconds.
const OPERATIONS_BETWEEN_LOOKS: u64 = 128;

/// The script engine with all that one session has defined so far.
pub(super) struct Interpreter {
    engine: Engine,
    variables: Scope<'static>,
    /// Holds functions and never statements.
    functions: AST,
    run: Rc<RefCell<Run>>,
}

/// The script that runs now.
#[derive(Default)]
struct Run {
    printed: String,
    overflowed: bool,
    client: Option<Client>,
}

impl Run {
    fn print(&mut self, line: &str) {
        if self.printed.len() + line.len() >= MAX_STRING {
            self.overflowed = true;
        } else {
            self.printed.push_str(line);
            self.printed.push('\n');
        }
    }

    fn client_left(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.try_recv() == Err(TryRecvError::Disconnected))
    }

    fn must_stop(&self) -> bool {
        self.overflowed || self.client_left()
    }
}

impl Interpreter {
    pub(super) fn new() -> Self {
        let run = Rc::new(RefCell::new(Run::default()));
        Self { engine: engine(&run), variables: Scope::new(), functions: AST::empty(), run }
    }

    /// Evaluates `script` unless `client` has left, and stops soon when it leaves.
    ///
    /// What the script defined before it failed stays defined.
    pub(super) fn evaluate(&mut self, script: &str, client: Client) -> Answer {
        *self.run.borrow_mut() = Run { client: Some(client), ..Run::default() };
        if self.run.borrow().client_left() {
            return Err("cancelled".into());
        }
        let value = self.value_of(script);
        let Run { mut printed, overflowed, .. } = self.run.take();
        match value {
            Ok(value) if value.is_unit() => {
                printed.truncate(printed.trim_end_matches('\n').len());
                Ok(printed)
            }
            Ok(value) => {
                printed.push_str(&value.to_string());
                Ok(printed)
            }
            Err(error) => {
                let reason = match *error {
                    EvalAltResult::ErrorTerminated(..) if overflowed => {
                        format!("the script printed more than {MAX_STRING} bytes")
                    }
                    error => error.to_string(),
                };
                printed.push_str(&reason);
                Err(printed)
            }
        }
    }

    fn value_of(&mut self, script: &str) -> Result<Dynamic, Box<EvalAltResult>> {
        let parsed = self.engine.compile_with_scope(&self.variables, script)?;
        let mut whole = self.functions.merge(&parsed);
        if whole.iter_functions().count() > MAX_FUNCTIONS {
            return Err(format!("the session has more than {MAX_FUNCTIONS} functions; start another one").into());
        }
        let value = self.engine.eval_ast_with_scope(&mut self.variables, &whole);
        self.forget_shadowed_variables();
        whole.clear_statements();
        self.functions = whole;
        value
    }

    /// `let x` over and over is what people type at a prompt. No later script can see the earlier ones, but the engine
    /// keeps them.
    fn forget_shadowed_variables(&mut self) {
        let names: HashSet<_> = self.variables.iter_raw().map(|(name, ..)| name).collect();
        if names.len() < self.variables.len() {
            self.variables = self.variables.clone_visible();
        }
    }
}

/// An engine whose scripts can neither reach the outside nor outgrow their limits.
fn engine(run: &Rc<RefCell<Run>>) -> Engine {
    // The raw engine, because the usual one loads modules from files.
    let mut engine = Engine::new_raw();
    engine
        .register_global_module(StandardPackage::new().as_shared_module())
        .set_module_resolver(DummyModuleResolver::new())
        .set_max_modules(0)
        .set_max_string_size(MAX_STRING)
        .set_max_array_size(MAX_ARRAY)
        .set_max_map_size(MAX_MAP)
        .set_max_variables(MAX_VARIABLES)
        .set_max_functions(MAX_FUNCTIONS)
        .set_max_call_levels(MAX_CALL_LEVELS)
        .set_max_expr_depths(MAX_EXPRESSION_DEPTH, MAX_EXPRESSION_DEPTH_IN_FUNCTION)
        // A string that is evaluated is a way around reading the script, and a session has other ways to run a second one.
        .disable_symbol("eval");
    let (printing, debugging, progress) = (Rc::clone(run), Rc::clone(run), Rc::clone(run));
    engine.on_print(move |line| printing.borrow_mut().print(line));
    engine.on_debug(move |line, _, position| debugging.borrow_mut().print(&format!("{line} ({position})")));
    engine.on_progress(move |operations| {
        let look = operations.is_multiple_of(OPERATIONS_BETWEEN_LOOKS);
        (look && progress.borrow().must_stop()).then(|| Dynamic::from("stopped"))
    });
    // The engine's own `sleep` would go on sleeping after the client left.
    let (whole, fraction) = (Rc::clone(run), Rc::clone(run));
    engine.register_fn("sleep", move |seconds: INT| sleep(&whole, Duration::try_from_secs_f64(seconds as f64)));
    engine.register_fn("sleep", move |seconds: FLOAT| sleep(&fraction, Duration::try_from_secs_f64(seconds)));
    engine
}

/// Sleeps for that long, or until the client leaves. Like the engine's own, it takes nonsense for zero.
fn sleep<E>(run: &RefCell<Run>, time: Result<Duration, E>) -> Result<(), Box<EvalAltResult>> {
    if let (Ok(time), Some(client)) = (time, &run.borrow().client)
        && client.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Disconnected)
    {
        return Err(EvalAltResult::ErrorTerminated("stopped".into(), Position::NONE).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An interpreter whose client waits for every answer.
    struct Prompt(Interpreter);

    impl Prompt {
        fn new() -> Self {
            Self(Interpreter::new())
        }

        fn enter(&mut self, script: &str) -> Answer {
            let (_present, client) = mpsc::channel();
            self.0.evaluate(script, client)
        }

        fn value(&mut self, script: &str) -> String {
            self.enter(script).unwrap_or_else(|error| panic!("{script:?} failed: {error}"))
        }

        fn error(&mut self, script: &str) -> String {
            self.enter(script).expect_err(script)
        }
    }

    #[test]
    fn variables_functions_and_closures_persist_between_scripts() {
        let mut prompt = Prompt::new();
        assert_eq!(prompt.value("let x = 41"), "");
        assert_eq!(prompt.value("x + 1"), "42");
        assert_eq!(prompt.value("fn f(a) { a * 2 }"), "");
        assert_eq!(prompt.value("f(21)"), "42");
        assert_eq!(prompt.value("fn f(a) { a * 3 } f(2)"), "6");
        assert_eq!(prompt.value("f(21)"), "63");
        prompt.value("let add = |a, b| a + b;");
        assert_eq!(prompt.value("add.call(40, 2)"), "42");
        prompt.value("const LIMIT = 7; x = [1, #{a: 'b'}]");
        assert_eq!(prompt.value("LIMIT"), "7");
        assert_eq!(prompt.value("x"), r#"[1, #{"a": 'b'}]"#);
    }

    #[test]
    fn printed_lines_come_before_the_value() {
        let mut prompt = Prompt::new();
        assert_eq!(prompt.value("print(1); print(`two`); 3"), "1\ntwo\n3");
        assert_eq!(prompt.value("print(1);"), "1");
        assert_eq!(prompt.value("\"text as it is\""), "text as it is");
        assert!(prompt.error("print(1); nowhere").starts_with("1\nVariable not found: nowhere"));
    }

    #[test]
    fn a_script_that_fails_leaves_what_it_did_before() {
        let mut prompt = Prompt::new();
        assert!(prompt.error("let kept = 1; if true { let inner = 2; throw \"why\" }").contains("why"));
        assert_eq!(prompt.value("kept"), "1");
        assert!(prompt.error("inner").contains("Variable not found"));
        assert!(prompt.error("let = ").contains("line 1"));
        assert_eq!(prompt.value("kept"), "1");
    }

    #[test]
    fn declaring_a_variable_again_and_again_is_no_leak() {
        let mut prompt = Prompt::new();
        for n in 0..3 * MAX_VARIABLES {
            prompt.value(&format!("let x = {n};"));
        }
        assert_eq!(prompt.value("x"), (3 * MAX_VARIABLES - 1).to_string());
        assert_eq!(prompt.0.variables.len(), 1);
    }

    #[test]
    fn what_would_outgrow_the_limits_is_an_error_and_the_session_goes_on() {
        let mut prompt = Prompt::new();
        prompt.value("let kept = 1");
        for script in [
            "let s = \"x\"; loop { s += s; }",
            "let a = [0]; loop { a += a; }",
            "let a = []; loop { a.push(\"0123456789\".len()); }",
            "let b = blob(1); loop { b += b; }",
            "let m = #{}; let n = 0; loop { m.set(`${n}`, n); n += 1; }",
            "fn deep(n) { deep(n + 1) } deep(0)",
            "loop { print(\"0123456789abcdef\") }",
            "\"x\".pad(9000000000, '-')",
        ] {
            prompt.error(script);
        }
        prompt.error(&format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000)));
        let all: String = (0..=MAX_VARIABLES).map(|n| format!("let v{n} = 0;")).collect();
        prompt.error(&all);
        for n in 0..MAX_FUNCTIONS {
            let _ = prompt.enter(&format!("fn f{n}() {{}}"));
        }
        assert!(prompt.error("fn one_more() {}").contains("more than"));
        assert_eq!(prompt.value("kept"), "1");
    }

    #[test]
    fn scripts_reach_nothing_outside() {
        let mut prompt = Prompt::new();
        for script in ["import \"/etc/passwd\" as p;", "eval(\"1\")", "open_file(\"/etc/passwd\")"] {
            prompt.error(script);
        }
    }

    #[test]
    fn a_script_stops_when_its_client_leaves() {
        for script in ["loop {}", "sleep(1000000)", "sleep(1e6)", "fn spin() { loop {} } spin()"] {
            let (present, client) = mpsc::channel();
            let (started, has_started) = mpsc::channel();
            let script = format!("print(\"started\"); {script}");
            let interpreting = std::thread::spawn(move || {
                let mut prompt = Prompt::new();
                prompt.0.engine.on_print(move |_| started.send(()).unwrap());
                prompt.0.evaluate(&script, client)
            });
            has_started.recv().unwrap();
            drop(present);
            assert!(interpreting.join().unwrap().unwrap_err().contains("terminated"));
        }
    }

    #[test]
    fn a_script_whose_client_left_before_its_turn_does_not_run() {
        let mut prompt = Prompt::new();
        let (present, client) = mpsc::channel();
        drop(present);
        prompt.0.evaluate("let x = 1", client).unwrap_err();
        prompt.error("x");
    }
}

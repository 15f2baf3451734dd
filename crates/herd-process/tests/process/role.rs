//! The programs that this binary plays when it is started as a worker.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what a worker prints is what is tested")]

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::net::{UnixDatagram, UnixListener, UnixStream},
    process::{self, ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// Plays the role that the arguments name, if they name one.
pub(crate) fn play() -> Option<ExitCode> {
    let mut args = env::args().skip(1);
    match args.next()?.as_str() {
        "worker" => {
            let words: Vec<_> = args.collect();
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            Some(worker(&words))
        }
        "as-user" => Some(crate::rootless::run(&args.next().expect("the name of a test"))),
        "fallback" => {
            crate::fixture::runtime().block_on(crate::fallback::run(&args.next().expect("the name of a test")));
            Some(ExitCode::SUCCESS)
        }
        "out-of-descriptors" => {
            crate::fixture::runtime().block_on(crate::fault::run_out_of_descriptors());
            Some(ExitCode::SUCCESS)
        }
        _ => None,
    }
}

fn worker(words: &[&str]) -> ExitCode {
    let mut roll = report();
    match words {
        // Listens on its port and answers.
        ["serve"] => serve(&bind()),
        // Listens some time after its start.
        ["serve-after", milliseconds] => {
            wait(Duration::from_millis(milliseconds.parse().expect("a number")));
            serve(&bind())
        }
        // Waits for a word from the test before it listens; ends if it cannot.
        ["serve-when-told"] => {
            roll.as_mut().expect("a roll").read_exact(&mut [0]).expect("the test says something");
            match TcpListener::bind(("127.0.0.1", port())) {
                Ok(listener) => serve(&listener),
                Err(error) => {
                    eprintln!("cannot listen: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        // Never listens, but reports.
        ["sleep"] => sleep(),
        // Answers every request with this status.
        ["status", status] => {
            let status = (*status).to_owned();
            answer(&bind(), move |_| Answer::status(&status))
        }
        ["garbage"] => answer(&bind(), |_| Answer::Raw(b"SSH-2.0-OpenSSH_9.2\r\n\x00\xff".to_vec())),
        ["mute"] => answer(&bind(), |_| sleep()),
        // Is fine until it is told to be `/worse`; then it answers this.
        ["worsen", how] => worsen(how),
        ["serve-socket", path] => serve_socket(path),
        ["serve-inherited"] => {
            let listener =
                herd_sandbox::inherited_listeners().expect("they are announced").pop().expect("there is one");
            serve(&listener.into())
        }
        ["serve-h2"] => serve_h2(),
        ["listen"] => {
            let _listener = bind();
            sleep()
        }
        // Says a line and listens.
        ["say", line] => {
            let listener = bind();
            println!("{line}");
            serve(&listener)
        }
        ["notify", message] => {
            let listener = bind();
            let path = env::var_os("NOTIFY_SOCKET").expect("the variable is set");
            let socket = UnixDatagram::unbound().expect("a socket");
            socket.send_to(message.replace(' ', "\n").as_bytes(), path).expect("somebody reads");
            serve(&listener)
        }
        // Writes these bytes, written as \NN in hexadecimal, or \n.
        ["write", stdout, stderr] => {
            let listener = bind();
            io::stdout().write_all(&unescape(stdout)).expect("somebody reads");
            io::stderr().write_all(&unescape(stderr)).expect("somebody reads");
            serve(&listener)
        }
        ["exit", code, lines @ ..] => {
            lines.iter().for_each(|line| eprintln!("{line}"));
            ExitCode::from(code.parse::<u8>().expect("a code"))
        }
        ["abort"] => process::abort(),
        // Writes as fast as it can.
        ["flood", line] => {
            let listener = bind();
            thread::spawn(move || serve(&listener));
            let block = format!("{line}\n").repeat(1 + 65_536 / (line.len() + 1));
            loop {
                io::stdout().write_all(block.as_bytes()).expect("somebody reads");
            }
        }
        _ => panic!("no such role: {words:?}"),
    }
}

/// Tells the test that this process runs, over a connection that lasts as long as the process.
fn report() -> Option<UnixStream> {
    let mut stream = UnixStream::connect(env::var_os("ROLL")?).expect("the test listens");
    let port = env::var("PORT").unwrap_or_else(|_| "0".to_owned());
    writeln!(stream, "{} {port}", process::id()).expect("the test reads");
    // It must stay open even if the role has no use for it.
    let kept = stream.try_clone().expect("a descriptor");
    thread::spawn(move || {
        let _kept = kept;
        sleep()
    });
    Some(stream)
}

fn sleep() -> ! {
    loop {
        thread::park();
    }
}

/// Lets time pass: here that is what the role is about.
fn wait(duration: Duration) {
    let (_sender, receiver) = mpsc::channel::<()>();
    let _ = receiver.recv_timeout(duration);
}

fn port() -> u16 {
    env::var("PORT").expect("PORT is set").parse().expect("PORT is a port")
}

fn bind() -> TcpListener {
    TcpListener::bind(("127.0.0.1", port())).expect("the port is free")
}

enum Answer {
    Raw(Vec<u8>),
    Body(String),
}

impl Answer {
    fn status(status: &str) -> Self {
        Self::Raw(format!("HTTP/1.1 {status} Whatever\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes())
    }

    fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Raw(bytes) => bytes,
            Self::Body(body) => {
                let length = body.len();
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").into_bytes()
            }
        }
    }
}

fn answer(listener: &TcpListener, answer: impl Fn(&str) -> Answer + Clone + Send + 'static) -> ! {
    for connection in listener.incoming().flatten() {
        let answer = answer.clone();
        thread::spawn(move || exchange(&connection, &connection, &answer));
    }
    unreachable!("there is always another connection")
}

/// One request and its answer. Clients that go away are no reason to complain.
fn exchange(input: impl io::Read, mut output: impl io::Write, answer: &impl Fn(&str) -> Answer) {
    let head: Vec<_> =
        BufReader::new(input).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let Some(path) = head.first().and_then(|line| line.split(' ').nth(1)) else { return };
    let _ = output.write_all(&answer(path).into_bytes());
}

/// Answers with facts about itself, and does what it is asked.
fn facts(path: &str) -> Answer {
    Answer::Body(match path.split_once('/').map_or("", |(_, rest)| rest) {
        "pid" => process::id().to_string(),
        "args" => env::args().skip(1).collect::<Vec<_>>().join("\n"),
        "cwd" => env::current_dir().expect("a directory").display().to_string(),
        "env" => {
            let mut env: Vec<_> = env::vars().map(|(name, value)| format!("{name}={value}")).collect();
            env.sort();
            env.join("\n")
        }
        "limits" => fs::read_to_string("/proc/self/limits").expect("/proc is there"),
        "abort" => {
            eprintln!("about to abort");
            process::abort()
        }
        rest if rest.starts_with("sh/") => shell(&rest[3..]),
        "missing" => return Answer::status("404"),
        _ => String::new(),
    })
}

/// What a script, given in hexadecimal, prints on both streams.
fn shell(script: &str) -> String {
    let digits = script.as_bytes().chunks_exact(2).map(|two| std::str::from_utf8(two).expect("digits"));
    let script = digits.map(|two| u8::from_str_radix(two, 16).expect("two digits")).collect();
    let script = String::from_utf8(script).expect("a script in UTF-8");
    let output = process::Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::null()).output().expect("a shell");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn serve(listener: &TcpListener) -> ! {
    answer(listener, facts)
}

fn serve_socket(path: &str) -> ! {
    for connection in UnixListener::bind(path).expect("the path is free").incoming().flatten() {
        thread::spawn(move || exchange(&connection, &connection, &facts));
    }
    unreachable!("there is always another connection")
}

/// Is healthy until the first request for `/worse`, and from then on in the state that it was told.
fn worsen(how: &str) -> ! {
    let listener = bind();
    for connection in listener.incoming().flatten() {
        if is_worse(&connection) {
            break;
        }
    }
    match how {
        "closes" => {
            drop(listener);
            sleep()
        }
        "reopens" => {
            drop(listener);
            serve(&bind())
        }
        "hangs" => answer(&listener, |_| sleep()),
        "babbles" => answer(&listener, |_| Answer::Raw(b"what?\r\n\r\n".to_vec())),
        "busy" => loop {
            // Accepts nothing more and burns its core.
            std::hint::spin_loop();
        },
        status => {
            let status = status.to_owned();
            answer(&listener, move |_| Answer::status(&status))
        }
    }
}

fn is_worse(connection: &TcpStream) -> bool {
    let worse = std::cell::Cell::new(false);
    exchange(connection, connection, &|path| {
        worse.set(path == "/worse");
        facts(path)
    });
    worse.get()
}

fn serve_h2() -> ! {
    use hyper::{Request, Response, body::Incoming, service::service_fn};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    crate::fixture::runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port())).await.expect("the port is free");
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let service = service_fn(|request: Request<Incoming>| async move {
                let version = format!("{:?}", request.version());
                Ok::<_, std::convert::Infallible>(Response::new(version))
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    })
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        if let Some(after) = escaped.strip_prefix('n') {
            bytes.push(b'\n');
            rest = after;
        } else {
            bytes.push(u8::from_str_radix(&escaped[..2], 16).expect("two digits"));
            rest = &escaped[2..];
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Another program that listens on a port, as a child of the test and not of a worker.
pub(crate) struct Foreigner(process::Child);

impl Foreigner {
    /// Resolves when it listens.
    pub(crate) async fn listen(port: u16) -> Self {
        let exe = env::current_exe().expect("this binary");
        let mut child = process::Command::new(exe)
            .args(["worker", "say", "listening"])
            .env("PORT", port.to_string())
            .env_remove("ROLL")
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let stdout = child.stdout.take().expect("a pipe");
        let line = tokio::task::spawn_blocking(|| BufReader::new(stdout).lines().next()).await.expect("no panic");
        assert_eq!(line.expect("a line").expect("UTF-8"), "listening");
        Self(child)
    }
}

impl Drop for Foreigner {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("it is ours");
    }
}

//! What this binary plays when it is started as something else than the tests.
#![expect(clippy::print_stdout, reason = "the test waits for it")]

use std::{
    env,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket},
    process::{Command, ExitCode},
    time::Duration,
};

use herd_pool::{WorkerFactory as _, WorkerId};

use crate::{fixture, world};

/// What is closed is refused at once or not at all.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long is waited for what shall never come.
const MOMENT: Duration = Duration::from_secs(1);

/// Connects by a socket that is bound to an interface, with the number of `SO_BINDTODEVICE` in asm-generic/socket.h.
const BOUND: &str = r#"
    use Socket; my ($address, $port) = @ARGV;
    socket(S, PF_INET, SOCK_STREAM, 0) or die "refused: socket: $!";
    setsockopt(S, SOL_SOCKET, 25, pack("Z16", "eth0")) or die "refused: bind: $!";
    connect(S, sockaddr_in($port, inet_aton($address))) or die "refused: $!";
    print "reached ", <S>;
"#;

/// Plays the role that the arguments name, if they name one.
pub(crate) fn play() -> Option<ExitCode> {
    let mut args = env::args().skip(1);
    match args.next()?.as_str() {
        "worker" => worker(),
        "outside" => Some(world::outside()),
        "daemon" => {
            fixture::runtime().block_on(daemon());
            Some(ExitCode::SUCCESS)
        }
        "build" => {
            match fixture::factory(&[]).build() {
                Ok(_) => println!("a factory"),
                Err(error) => println!("{error}"),
            }
            Some(ExitCode::SUCCESS)
        }
        "spawn" => {
            fixture::runtime().block_on(async {
                let factory = fixture::factory(&[]).build().expect("the sandbox can be had");
                match factory.spawn(WorkerId::new(1)).await {
                    Ok(_) => println!("a worker"),
                    Err(error) => println!("{error}"),
                }
            });
            Some(ExitCode::SUCCESS)
        }
        "as-user" => {
            let name = args.next().expect("the name of a test");
            let (_, test) = crate::tests().into_iter().find(|(known, _)| *known == name).expect("there is such a test");
            test();
            Some(ExitCode::SUCCESS)
        }
        _ => None,
    }
}

/// Tells of its worker's pasta and waits to be killed, or for the end of whoever started it.
async fn daemon() {
    let factory = fixture::factory(&[]).build().expect("the sandbox can be had");
    let _worker = factory.spawn(WorkerId::new(1)).await.expect("the worker starts");
    println!("{}", fixture::the_pasta().await);
    let waited = tokio::task::spawn_blocking(|| std::io::stdin().lock().read_to_end(&mut Vec::new()));
    let _ = waited.await;
}

/// Does one deed for each connection.
fn worker() -> ! {
    let port = env::var("PORT").expect("it is set").parse().expect("a number");
    // On all addresses: whoever gets at the worker's network gets at it.
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("nobody else has it");
    loop {
        let (stream, _) = listener.accept().expect("a connection");
        std::thread::spawn(move || {
            let mut deed = String::new();
            if BufReader::new(&stream).read_line(&mut deed).is_ok_and(|length| length > 0) {
                let _ = (&stream).write_all(perform(deed.trim_end()).as_bytes());
            }
        });
    }
}

fn perform(deed: &str) -> String {
    let words: Vec<_> = deed.split(' ').collect();
    match words[..] {
        // Connects to a name or an address.
        ["tcp", to] => match to.to_socket_addrs().map(|mut addresses| addresses.find(SocketAddr::is_ipv4)) {
            Ok(Some(address)) => connect(address),
            Ok(None) => "unknown".to_owned(),
            Err(error) => format!("unknown: {error}"),
        },
        ["bound", address, port] => {
            let output = Command::new("perl").args(["-e", BOUND, address, port]).output();
            let output = output.expect("perl: install the package perl-base");
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
        }
        ["udp", to] => datagram(to).unwrap_or_else(|error| format!("refused: {error}")),
        // Connects many times at once.
        ["many", to, count] => {
            let to: SocketAddr = to.parse().expect("an address");
            let count: usize = count.parse().expect("a number");
            let threads: Vec<_> = (0..count).map(|_| std::thread::spawn(move || connect(to))).collect();
            let reached = threads.into_iter().filter_map(|thread| thread.join().ok());
            reached.filter(|answer| answer.starts_with("reached")).count().to_string()
        }
        // Asks for a name by a stream, and tells whether the address that is wanted is in the answer.
        ["stream-name", server, name] => {
            ask_by_stream(server, name).unwrap_or_else(|error| format!("refused: {error}"))
        }
        _ => format!("no deed: {deed}"),
    }
}

fn connect(address: SocketAddr) -> String {
    let mut answer = String::new();
    let reached = TcpStream::connect_timeout(&address, PATIENCE).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read_to_string(&mut answer)
    });
    match reached {
        Ok(_) => format!("reached {answer}"),
        Err(error) => format!("refused: {error}"),
    }
}

fn datagram(to: &str) -> std::io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(MOMENT))?;
    socket.send(b"echo")?;
    let length = socket.recv(&mut [0; 16])?;
    Ok(format!("reached {length}"))
}

fn ask_by_stream(server: &str, name: &str) -> std::io::Result<String> {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).expect("a label"));
        question.extend(label.bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let mut stream = TcpStream::connect_timeout(&server.parse().expect("an address"), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = u16::try_from(question.len()).expect("it is short").to_be_bytes();
    stream.write_all(&[&length[..], &question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    let address: Vec<_> = answer[answer.len() - 4..].iter().map(u8::to_string).collect();
    Ok(format!("answered {}", address.join(".")))
}

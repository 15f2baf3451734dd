//! Passes a worker's questions for names on to the host's own name servers, and their answers back.
//!
//! Nothing of them is looked into: what a worker asks and what it is told are its own business, and an answer opens no
//! address to it that was closed.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UdpSocket},
    select,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

/// The port of name servers, RFC 1035.
const PORT: u16 = 53;

/// How many of a worker's questions are on their way at once. Further datagrams are dropped, and asked again by whoever
/// asks for names; further streams wait.
const MAX_DATAGRAMS: usize = 64;
const MAX_STREAMS: usize = 16;

/// How long a name server gets to answer before the next one is asked, and how long a stream may take.
const PATIENCE: Duration = Duration::from_secs(3);
const STREAM_PATIENCE: Duration = Duration::from_secs(30);

/// How long nothing is accepted after the host ran out of something.
const PAUSE: Duration = Duration::from_millis(100);

/// How many name servers are asked, as in resolv.conf(5).
const MAX_SERVERS: usize = 3;

/// The longest message: a datagram holds no more, and neither does the length before one in a stream.
const MAX_MESSAGE: usize = 65_535;

/// The host's name servers, in the order in which they are asked; see resolv.conf(5).
pub(crate) fn servers() -> Vec<SocketAddr> {
    parse(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

fn parse(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        // What is behind a `%` names an interface; addresses that need one are for machines next door.
        let is_server = words.next() == Some("nameserver");
        words.next().filter(|_| is_server)?.parse::<IpAddr>().ok()
    };
    let servers: Vec<_> = text.lines().filter_map(address).take(MAX_SERVERS).collect();
    let servers = if servers.is_empty() { vec![IpAddr::V4(Ipv4Addr::LOCALHOST)] } else { servers };
    servers.into_iter().map(|address| SocketAddr::new(address, PORT)).collect()
}

/// Answers a worker's questions for as long as this is polled.
pub(crate) async fn answer(datagrams: UdpSocket, streams: TcpListener, servers: Vec<SocketAddr>) {
    let servers: Arc<[SocketAddr]> = servers.into();
    tokio::join!(answer_datagrams(datagrams.into(), &servers), answer_streams(streams, &servers));
}

async fn answer_datagrams(socket: Arc<UdpSocket>, servers: &Arc<[SocketAddr]>) {
    let mut asked = JoinSet::new();
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok((length, worker)) if asked.len() < MAX_DATAGRAMS => {
                    let (question, socket, servers) = (buffer[..length].to_vec(), Arc::clone(&socket), Arc::clone(servers));
                    asked.spawn(async move {
                        if let Some(answer) = ask(&question, &servers).await {
                            // The worker may be gone.
                            let _ = socket.send_to(&answer, worker).await;
                        }
                    });
                }
                Ok(_) => {}
                // The worker's network tells of an answer that found nobody.
                Err(_) => sleep(PAUSE).await,
            },
            Some(_) = asked.join_next() => {}
        }
    }
}

/// The first answer that a name server gives.
async fn ask(question: &[u8], servers: &[SocketAddr]) -> Option<Vec<u8>> {
    // A message begins with a number, by which its answer is known.
    let id = question.get(..2)?;
    for server in servers {
        if let Ok(Ok(answer)) = timeout(PATIENCE, ask_one(question, id, *server)).await {
            return Some(answer);
        }
    }
    None
}

async fn ask_one(question: &[u8], id: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let own = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    // A socket for each question: its port is one that nobody can foretell, and it hears the name server alone.
    let socket = UdpSocket::bind((own, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if buffer[..length].starts_with(id) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn answer_streams(listener: TcpListener, servers: &Arc<[SocketAddr]>) {
    let places = Arc::new(Semaphore::new(MAX_STREAMS));
    let mut open = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let servers = Arc::clone(servers);
                    open.spawn(async move {
                        let _place = place;
                        // Whoever asks sees the connection end.
                        let _ = timeout(STREAM_PATIENCE, pass_on(stream, &servers)).await;
                    });
                }
                Err(_) => sleep(PAUSE).await,
            },
            Some(_) = open.join_next() => {}
        }
    }
}

async fn pass_on(mut worker: TcpStream, servers: &[SocketAddr]) -> io::Result<()> {
    for server in servers {
        if let Ok(Ok(mut server)) = timeout(PATIENCE, TcpStream::connect(server)).await {
            copy_bidirectional(&mut worker, &mut server).await?;
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_those_of_the_host() {
        let text = "# a comment\nsearch example.org\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 \nnameserver fe80::1%eth0\n\
                    nameserver\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let expected = ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"];
        assert_eq!(parse(text), expected.map(|address| address.parse().expect("an address")));
        assert_eq!(parse(""), ["127.0.0.1:53".parse().expect("an address")]);
    }

    #[tokio::test]
    async fn the_next_name_server_is_asked_when_one_is_silent_and_strangers_are_not_heard() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = vec![silent.local_addr().unwrap(), server.local_addr().unwrap()];
        let ours = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = ours.local_addr().unwrap();
        let streams = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answering = tokio::spawn(answer(ours, streams, servers));

        let worker = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        worker.send_to(b"\x01\x02question", at).await.unwrap();
        let mut buffer = [0; 64];
        let (length, from) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"\x01\x02question");
        // Who does not know the number is no name server.
        server.send_to(b"\x01\x03wrong", from).await.unwrap();
        server.send_to(b"\x01\x02answer", from).await.unwrap();
        let length = worker.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"\x01\x02answer");
        answering.abort();
    }

    #[tokio::test]
    async fn streams_are_passed_on_both_ways() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let streams = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = streams.local_addr().unwrap();
        let datagrams = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let answering = tokio::spawn(answer(datagrams, streams, vec![server.local_addr().unwrap()]));

        let mut worker = TcpStream::connect(at).await.unwrap();
        worker.write_all(b"question").await.unwrap();
        let (mut asked, _) = server.accept().await.unwrap();
        let mut buffer = [0; 8];
        asked.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"question");
        asked.write_all(b"answer").await.unwrap();
        drop(asked);
        let mut answer = String::new();
        worker.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        answering.abort();
    }
}

//! What happens when the process runs out of descriptors. A test of its own, since the limit is the process's.

mod fakes;

use fakes::{Client, Fixture, say_id, soon};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\n\r\n";

#[tokio::test]
async fn without_descriptors_new_connections_wait_and_served_ones_go_on() {
    let fixture = Fixture::start(say_id).await;
    let mut served = fixture.connect().await;
    served.send(GET).await;
    assert_eq!(served.answer().await.status, 200);
    // Connections that are not accepted yet have their descriptors here already.
    let mut waiting = Vec::new();
    for _ in 0..8 {
        waiting.push(TcpStream::connect(fixture.address).await.unwrap());
    }
    soon(async {
        while fixture.gateway.stats().connections < 9 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let late = TcpSocket::new_v4().unwrap();
    // From here on nothing can be opened: the limit is close, and what is left below it is taken.
    let limit = getrlimit(Resource::Nofile);
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(open + 8), maximum: limit.maximum }).unwrap();
    let taken: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    let mut late = late.connect(fixture.address).await.unwrap();
    late.write_all(GET.as_bytes()).await.unwrap();
    let failures = soon(async {
        loop {
            let failures = fixture.gateway.stats().accept_failures_total;
            if failures >= 3 {
                break failures;
            }
            served.send(GET).await;
            let answer = served.answer().await;
            assert_eq!(answer.status, 200, "served connections go on: {}", answer.text());
        }
    })
    .await;
    assert!(failures < 100, "accepting does not spin");
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut late = Client { stream: late, unread: Vec::new() };
    assert_eq!(late.answer().await.status, 200);
    drop((waiting, taken));
}

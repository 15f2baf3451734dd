//! What large bodies cost. One test alone, so that nothing else uses the memory of its process meanwhile.

mod fakes;

use fakes::{Client, Fixture, request_head, response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\n\r\n";

#[tokio::test]
async fn large_bodies_are_never_held() {
    bodies_of_64_mib_pass_without_being_held().await;
    a_client_that_reads_nothing_holds_the_worker_back_and_not_the_gateways_memory().await;
}

/// Passes 64 MiB and returns by how many bytes the process grew at most.
async fn growth_while(work: impl Future<Output = ()>) -> u64 {
    let before = resident();
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak can be reset");
    work.await;
    peak().saturating_sub(before)
}

fn status_field(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn resident() -> u64 {
    status_field("VmRSS")
}

fn peak() -> u64 {
    status_field("VmHWM")
}

const LARGE: usize = 64 << 20;

/// Takes and gives large bodies without ever holding one.
async fn large_bodies(mut stream: TcpStream, life: fakes::Life) {
    let block = [b'x'; 16384];
    while let Some(head) = request_head(&mut stream).await {
        if head.starts_with("POST") {
            let (mut left, mut buf) = (LARGE, [0; 16384]);
            while left > 0 {
                let len = left.min(buf.len());
                let read = stream.read(&mut buf[..len]).await.unwrap();
                assert!(read > 0 && buf[..read].iter().all(|byte| *byte == b'x'));
                left -= read;
            }
            stream.write_all(response("got it").as_bytes()).await.unwrap();
        } else {
            stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n").as_bytes()).await.unwrap();
            for sent in 0..LARGE / block.len() {
                if stream.write_all(&block).await.is_err() {
                    life.tell(format!("cut after {}", sent * block.len()));
                    return;
                }
            }
        }
    }
}

async fn upload(client: &mut Client) {
    let head = format!("POST / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\ncontent-length: {LARGE}\r\n\r\n");
    client.send(head).await;
    let block = [b'x'; 16384];
    for _ in 0..LARGE / block.len() {
        client.stream.write_all(&block).await.unwrap();
    }
    assert_eq!(client.answer().await.text(), "got it");
}

async fn download(client: &mut Client) {
    client.send(GET).await;
    assert_eq!(client.head().await.status, 200);
    let (mut left, mut buf) = (LARGE - client.unread.len(), [0; 16384]);
    client.unread.clear();
    while left > 0 {
        let len = left.min(buf.len());
        let read = client.stream.read(&mut buf[..len]).await.unwrap();
        assert!(read > 0 && buf[..read].iter().all(|byte| *byte == b'x'));
        left -= read;
    }
}

async fn bodies_of_64_mib_pass_without_being_held() {
    let fixture = Fixture::start(large_bodies).await;
    let mut client = fixture.connect().await;
    let growth = growth_while(async {
        upload(&mut client).await;
        download(&mut client).await;
    })
    .await;
    assert!(growth < 4 << 20, "the process grew by {growth} bytes");
    let session = fixture.pool.session(&"a".parse().unwrap()).unwrap();
    assert_eq!((session.bytes_in, session.bytes_out), (LARGE as u64, (LARGE + "got it".len()) as u64));
}

async fn a_client_that_reads_nothing_holds_the_worker_back_and_not_the_gateways_memory() {
    let mut fixture = Fixture::start(large_bodies).await;
    let mut client = fixture.connect().await;
    let growth = growth_while(async {
        client.send(GET).await;
        assert_eq!(client.head().await.status, 200);
        // Others are served while this one stands still.
        for _ in 0..3 {
            let mut other = fixture.connect().await;
            upload(&mut other).await;
        }
    })
    .await;
    assert!(growth < 4 << 20, "the process grew by {growth} bytes");
    assert!(fixture.told.try_recv().is_err(), "the worker is still sending");
    drop(client);
    assert!(fixture.next_told().await.starts_with("cut after "));
}

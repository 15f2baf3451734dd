//! Workers that are tasks of the test: a server on loopback that answers as the test says and dies when it is told to.
#![allow(dead_code, unreachable_pub, missing_docs, missing_debug_implementations)]

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use herd_gateway::{Gateway, GatewayOptions, Tls};
use herd_pool::{
    Connect, Exit, ExitStatus, HealthError, Pool, PoolBuilder, Protocol, SpawnError, Worker, WorkerFactory, WorkerId,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// No test waits longer than this for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for what must happen.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it did not happen in time")
}

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;
type Behaviour = Arc<dyn Fn(TcpStream, Life) -> BoxFuture + Send + Sync>;

/// What a fake worker's connections can do to it and tell the test.
#[derive(Clone)]
pub struct Life {
    pub worker: WorkerId,
    exit: Arc<watch::Sender<Option<Exit>>>,
    tell: mpsc::UnboundedSender<String>,
}

impl Life {
    /// The worker dies now, as a process would: all its connections and its listener close.
    pub fn crash(&self) {
        self.exit_as(Exit::with_status(ExitStatus::Signal(9)));
    }

    pub fn exit_as(&self, exit: Exit) {
        self.exit.send_if_modified(|now| {
            let first = now.is_none();
            now.get_or_insert(exit);
            first
        });
    }

    /// Tells the test something.
    pub fn tell(&self, what: impl Into<String>) {
        let _ = self.tell.send(what.into());
    }
}

pub struct FakeWorker {
    address: SocketAddr,
    uri: String,
    life: Life,
    protocol: Protocol,
    closing: Option<Arc<Notify>>,
}

impl Worker for FakeWorker {
    type Client = ();

    fn id(&self) -> WorkerId {
        self.life.worker
    }

    fn address(&self) -> &str {
        &self.uri
    }

    fn client(&self) -> &() {
        &()
    }

    async fn healthy(&self) -> Result<(), HealthError> {
        match &*self.life.exit.borrow() {
            None => Ok(()),
            Some(exit) => Err(HealthError::new(exit)),
        }
    }

    fn exited(&self) -> impl Future<Output = Exit> + Send + 'static {
        let mut exit = self.life.exit.subscribe();
        async move { exit.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone()).expect("it has exited") }
    }

    async fn close(&self) {
        if let Some(closing) = &self.closing {
            self.life.tell("closing");
            closing.notified().await;
        }
        self.life.exit_as(Exit::with_status(ExitStatus::Code(0)));
    }
}

impl Connect for FakeWorker {
    type Stream = TcpStream;

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await.inspect_err(|_| self.life.tell("unreachable"))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn protocol(&self) -> Protocol {
        self.protocol
    }
}

pub struct FakeFactory {
    behaviour: Behaviour,
    protocol: Protocol,
    tell: mpsc::UnboundedSender<String>,
    lives: Arc<Mutex<Vec<Life>>>,
    refuse: Option<&'static str>,
    listens: bool,
    closing: Option<Arc<Notify>>,
}

impl WorkerFactory for FakeFactory {
    type Worker = FakeWorker;

    async fn spawn(&self, id: WorkerId) -> Result<FakeWorker, SpawnError> {
        if let Some(reason) = self.refuse {
            return Err(SpawnError::new(reason));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(SpawnError::new)?;
        let address = listener.local_addr().map_err(SpawnError::new)?;
        let exit = Arc::new(watch::Sender::new(None));
        let life = Life { worker: id, exit, tell: self.tell.clone() };
        self.lives.lock().unwrap().push(life.clone());
        let (behaviour, on_connection) = (self.behaviour.clone(), life.clone());
        let mut exited = life.exit.subscribe();
        let worker = FakeWorker {
            address,
            uri: format!("http://{address}"),
            life,
            protocol: self.protocol,
            closing: self.closing.clone(),
        };
        if !self.listens {
            return Ok(worker);
        }
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let serve = async {
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).unwrap();
                    connections.spawn(behaviour(stream, on_connection.clone()));
                }
            };
            tokio::select! {
                () = serve => {}
                _ = exited.wait_for(Option::is_some) => {}
            }
        });
        Ok(worker)
    }
}

/// One more pool, without a gateway: its workers treat each connection so.
pub fn pool_of<B, Fut>(behaviour: B) -> Pool<FakeFactory>
where
    B: Fn(TcpStream, Life) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let factory = FakeFactory {
        behaviour: Arc::new(move |stream, life| Box::pin(behaviour(stream, life))),
        protocol: Protocol::Http1,
        tell: mpsc::unbounded_channel().0,
        lives: Arc::default(),
        refuse: None,
        listens: true,
        closing: None,
    };
    Pool::builder(factory).min_workers(0).spare(0).build().unwrap()
}

/// Workers that answer each request with the pool's name and their own ID.
pub fn pool_that_says(name: &'static str) -> Pool<FakeFactory> {
    pool_of(move |mut stream, life| async move {
        while request_head(&mut stream).await.is_some() {
            let said = response(&format!("{name} {}", life.worker));
            if stream.write_all(said.as_bytes()).await.is_err() {
                return;
            }
        }
    })
}

/// A gateway in front of fake workers.
pub struct Fixture {
    pub address: SocketAddr,
    pub pool: Pool<FakeFactory>,
    pub gateway: Gateway<FakeFactory>,
    /// What the workers tell.
    pub told: mpsc::UnboundedReceiver<String>,
    lives: Arc<Mutex<Vec<Life>>>,
    shutdown: Option<oneshot::Sender<()>>,
    pub served: JoinHandle<()>,
}

/// How to set a fixture up.
pub struct Setup {
    pub options: GatewayOptions,
    pub protocol: Protocol,
    pub refuse: Option<&'static str>,
    pub listens: bool,
    /// What a worker that is closed waits for before it goes, after it has told `closing`; `None`: for nothing.
    pub closing: Option<Arc<Notify>>,
    /// `None`: plain text is spoken.
    pub tls: Option<Arc<Tls>>,
    /// How many bytes the system takes for a client that reads nothing; `None`: as many as it likes.
    pub send_buffer: Option<usize>,
    pub pool: fn(PoolBuilder<FakeFactory>) -> PoolBuilder<FakeFactory>,
}

impl Default for Setup {
    fn default() -> Self {
        let pool = |builder: PoolBuilder<FakeFactory>| builder.min_workers(0).spare(0);
        Self {
            options: GatewayOptions::default(),
            protocol: Protocol::Http1,
            refuse: None,
            listens: true,
            closing: None,
            tls: None,
            send_buffer: None,
            pool,
        }
    }
}

impl Setup {
    pub fn with(options: GatewayOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Starts a gateway whose workers listen nowhere.
    pub async fn start_unreachable(mut self) -> Fixture {
        self.listens = false;
        self.start(|_, _| async {}).await
    }

    /// Starts a gateway whose workers treat each connection so.
    pub async fn start<B, Fut>(self, behaviour: B) -> Fixture
    where
        B: Fn(TcpStream, Life) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (tell, told) = mpsc::unbounded_channel();
        let lives = Arc::new(Mutex::new(Vec::new()));
        let factory = FakeFactory {
            behaviour: Arc::new(move |stream, life| Box::pin(behaviour(stream, life))),
            protocol: self.protocol,
            tell,
            lives: lives.clone(),
            refuse: self.refuse,
            listens: self.listens,
            closing: self.closing,
        };
        let pool = (self.pool)(Pool::builder(factory)).build().unwrap();
        let gateway = Gateway::new(pool.clone(), self.options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Some(bytes) = self.send_buffer {
            // Accepted sockets take it over.
            rustix::net::sockopt::set_socket_send_buffer_size(&listener, bytes).unwrap();
        }
        let address = listener.local_addr().unwrap();
        let (shutdown, down) = oneshot::channel::<()>();
        let serving = gateway.clone();
        let served = tokio::spawn(async move {
            let down = async {
                let _ = down.await;
            };
            match self.tls {
                Some(tls) => serving.serve_tls(listener, tls, down).await,
                None => serving.serve(listener, down).await,
            }
        });
        Fixture { address, pool, gateway, told, lives, shutdown: Some(shutdown), served }
    }
}

impl Fixture {
    /// A gateway with default options.
    pub async fn start<B, Fut>(behaviour: B) -> Self
    where
        B: Fn(TcpStream, Life) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Setup::default().start(behaviour).await
    }

    pub async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Sends one request on a connection of its own and returns the answer.
    pub async fn ask(&self, request: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        client.answer().await
    }

    /// Waits for what a worker tells next.
    pub async fn next_told(&mut self) -> String {
        soon(self.told.recv()).await.expect("the workers are there")
    }

    /// The worker that was started last.
    pub fn last_worker(&self) -> Life {
        self.lives.lock().unwrap().last().cloned().expect("a worker was started")
    }

    pub fn shut_down(&mut self) {
        let _ = self.shutdown.take().map(|shutdown| shutdown.send(()));
    }

    /// Waits until nobody holds a lease of the session.
    pub async fn released(&self, session: &str) {
        let id = session.parse().unwrap();
        soon(async {
            while self.pool.session(&id).is_some_and(|session| session.leases > 0) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// A client that says exactly what it is told to.
pub struct Client<S = TcpStream> {
    pub stream: S,
    pub unread: Vec<u8>,
}

/// A response as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The values of the field, in order.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).first().copied()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// A member of a problem document.
    pub fn problem(&self, member: &str) -> serde_json::Value {
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{}", self.head);
        let document: serde_json::Value = serde_json::from_slice(&self.body).expect("the body is JSON");
        assert_eq!(document["status"], self.status);
        document[member].clone()
    }
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, unread: Vec::new() }
    }

    /// Sends until nobody takes any more, then breaks the connection off.
    pub async fn flood_and_reset(self) {
        let chunk = [b'a'; 64 * 1024];
        // A gateway that still moves bytes makes room again within this time.
        while tokio::time::timeout(std::time::Duration::from_millis(200), self.stream.writable()).await.is_ok() {
            let _ = self.stream.try_write(&chunk);
        }
        self.stream.set_zero_linger().unwrap();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.unwrap();
        // TLS keeps what the socket did not take at once.
        soon(self.stream.flush()).await.unwrap();
    }

    /// Reads some more; false at the end of the stream, however it came.
    pub async fn read_more(&mut self) -> bool {
        matches!(soon(self.stream.read_buf(&mut self.unread)).await, Ok(1..))
    }

    /// Reads until `end` was read, and takes all up to there.
    pub async fn read_until(&mut self, end: &str) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end.as_bytes()) {
                return Some(self.unread.drain(..at + end.len()).collect());
            }
            if !self.read_more().await {
                return None;
            }
        }
    }

    pub async fn read_exactly(&mut self, len: usize) -> Option<Vec<u8>> {
        while self.unread.len() < len {
            if !self.read_more().await {
                return None;
            }
        }
        Some(self.unread.drain(..len).collect())
    }

    pub async fn head(&mut self) -> Answer {
        let head = self.read_until("\r\n\r\n").await.expect("a response comes");
        let head = String::from_utf8(head).expect("a head is ASCII");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("it has a status");
        Answer { status, head, body: Vec::new() }
    }

    /// Reads a response whole. Its body must be framed by a length or in chunks, or be none.
    pub async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        if answer.field("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.read_until("\r\n").await.expect("a chunk comes");
                let size = usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim(), 16).unwrap();
                if size == 0 {
                    loop {
                        let line = self.read_until("\r\n").await.expect("the last chunk ends");
                        if line == b"\r\n" {
                            break;
                        }
                        answer.head.push_str(std::str::from_utf8(&line).unwrap());
                    }
                    return answer;
                }
                let chunk = self.read_exactly(size + 2).await.expect("the chunk is complete");
                answer.body.extend_from_slice(&chunk[..size]);
            }
        }
        let len = answer.field("content-length").map_or(0, |len| len.parse().unwrap());
        answer.body = self.read_exactly(len).await.expect("the body is complete");
        answer
    }

    /// Whether the gateway has closed the connection, after all that was unread.
    pub async fn is_closed(&mut self) -> bool {
        while self.read_more().await {}
        true
    }
}

/// Reads a request's head from a worker's connection. `None` when the gateway has closed it.
pub async fn request_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// A response with this body.
pub fn response(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A worker that answers each request with the request's own head.
pub async fn echo_heads(mut stream: TcpStream, _: Life) {
    while let Some(head) = request_head(&mut stream).await {
        if stream.write_all(response(&head).as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A worker that answers each request with its own ID.
pub async fn say_id(mut stream: TcpStream, life: Life) {
    while request_head(&mut stream).await.is_some() {
        if stream.write_all(response(&life.worker.to_string()).as_bytes()).await.is_err() {
            return;
        }
    }
}

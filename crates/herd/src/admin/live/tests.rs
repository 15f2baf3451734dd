//! Readers that apply what they are told have what there is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::body::Bytes;
use herd_pool::{SessionId, Tenant, TenantLimits, WorkerId};
use proptest::prelude::*;
use serde_json::Value;
use tokio::{runtime::Builder, time::Instant};

use super::{
    super::{
        model::{Session, Worker},
        sse::{Source as _, Told},
    },
    board::{Board, Demand},
    picture::{Content, Picture, SessionKey},
    reader::Reader,
    *,
};

/// What there is: of each session how often it was used and whether it is in use, and of each worker what it uses.
#[derive(Clone, Debug, Default)]
struct World {
    sessions: BTreeMap<(u8, u8, u8), (u64, bool)>,
    workers: BTreeMap<u64, u64>,
    /// Passes with each picture.
    time: u64,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    Use(u8, u8, u8, bool),
    End(u8, u8, u8),
    Work(u64),
    Exit(u64),
    /// Many come or go at once.
    Fill(bool),
    Look,
    /// The reader takes what is there for it, up to so many frames.
    Read(u8),
}

impl World {
    fn happen(&mut self, step: Step) {
        match step {
            Step::Use(pool, tenant, id, goes_on) => {
                let session = self.sessions.entry((pool, tenant, id)).or_default();
                *session = (session.0 + 1, goes_on);
            }
            Step::End(pool, tenant, id) => drop(self.sessions.remove(&(pool, tenant, id))),
            Step::Work(id) => *self.workers.entry(id).or_default() += 1,
            Step::Exit(id) => drop(self.workers.remove(&id)),
            Step::Fill(true) => self.workers.extend((1000..2200).map(|id| (id, 0))),
            Step::Fill(false) => self.workers.retain(|id, _| *id < 1000),
            Step::Look | Step::Read(_) => {}
        }
    }

    fn content(&self, tenants: &[Option<Tenant>]) -> Content {
        let mut sessions: Vec<_> = self
            .sessions
            .iter()
            .map(|(&(pool, tenant, id), &(requests, in_use))| {
                let id = SessionId::new(format!("s{id}")).unwrap();
                let tenant = &tenants[usize::from(tenant)];
                let id = tenant.as_ref().map_or(id.clone(), |tenant| id.of(tenant));
                let session = Session {
                    pool: format!("p{pool}"),
                    tenant: tenant.as_ref().map(Tenant::to_string),
                    id: id.to_string(),
                    state: "live".to_owned(),
                    worker: None,
                    address: None,
                    created: String::new(),
                    last_used: if in_use { self.time.to_string() } else { String::new() },
                    idle_until: None,
                    ends_by: None,
                    leases: in_use.into(),
                    requests,
                    bytes_in: 0,
                    bytes_out: 0,
                };
                (SessionKey { pool: session.pool.as_str().into(), id }, session)
            })
            .collect();
        sessions.sort_by(|(one, _), (other, _)| one.cmp(other));
        let workers = self.workers.iter().map(|(&id, &used)| {
            let text = format!("worker-{}", id + 1);
            (text.parse::<WorkerId>().unwrap(), worker(text, used))
        });
        Content { sessions, workers: workers.collect(), stats: sse::frame(None, "stats", &self.time) }
    }
}

fn worker(id: String, used: u64) -> Worker {
    Worker {
        pool: "p0".to_owned(),
        id,
        pid: None,
        state: "spare".to_owned(),
        session: None,
        tenant: None,
        address: None,
        started: String::new(),
        ready_after_ms: None,
        restarts: 0,
        cpu_time_ms: Some(used),
        memory_bytes: None,
        memory_peak_bytes: None,
        pids: None,
        oom_kills: None,
        limits: None,
        layers: Vec::new(),
        missing: Vec::new(),
    }
}

/// One who applies what it is told.
#[derive(Debug, Default)]
struct Model {
    sessions: BTreeMap<String, Value>,
    workers: BTreeMap<String, Value>,
    ready: usize,
    stats: usize,
}

impl Model {
    fn apply(&mut self, told: &Told) {
        let Told::Frame(frame) = told else { panic!("{told:?}") };
        let (name, data) = parse(frame);
        let key = |row: &Value| format!("{}/{}/{}", row["pool"], row["tenant"], row["id"]);
        let items = |list: &Value| list.as_array().cloned().unwrap();
        match name.as_str() {
            "sessions" => self.sessions.extend(items(&data["items"]).into_iter().map(|row| (key(&row), row))),
            "workers" => self.workers.extend(items(&data["items"]).into_iter().map(|row| (row["id"].to_string(), row))),
            "gone" => {
                for row in items(&data["sessions"]) {
                    self.sessions.remove(&key(&row));
                }
                for id in items(&data["workers"]) {
                    self.workers.remove(&id.to_string());
                }
            }
            "ready" => self.ready += 1,
            "stats" => self.stats += 1,
            "hello" => {}
            other => panic!("{other}"),
        }
    }

    /// Whether it has what the picture shows.
    fn check(&self, picture: &Picture) {
        let of = |rows: &BTreeMap<String, Value>| -> BTreeSet<String> { rows.values().map(without_time).collect() };
        let sessions: BTreeSet<_> = picture.sessions.iter().map(|row| text_without_time(&row.text)).collect();
        let workers: BTreeSet<_> = picture.workers.iter().map(|row| text_without_time(&row.text)).collect();
        assert_eq!(of(&self.sessions), sessions);
        assert_eq!(of(&self.workers), workers);
        assert_eq!((self.sessions.len(), self.workers.len()), (sessions.len(), workers.len()));
    }
}

/// The time of the last use of a session that is in use is always now.
fn without_time(row: &Value) -> String {
    let mut row = row.clone();
    if row["leases"].as_u64().is_some_and(|leases| leases > 0) {
        row["last_used"] = Value::Null;
    }
    row.to_string()
}

fn text_without_time(text: &str) -> String {
    without_time(&serde_json::from_str(text).unwrap())
}

/// The name and the data of a frame.
fn parse(frame: &Bytes) -> (String, Value) {
    let text = std::str::from_utf8(frame).unwrap();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    (field("event: ").to_owned(), serde_json::from_str(field("data: ")).unwrap())
}

fn look(board: &Board, content: Content) -> Arc<Picture> {
    let former = board.latest();
    let (picture, gone) = Picture::next(board.begin(), Instant::now(), content, former.as_deref());
    board.show(picture, gone);
    board.latest().unwrap()
}

fn reader(board: &Board) -> Reader {
    let (seat, _) = board.join(LEAST_INTERVAL).unwrap();
    Reader::new(seat, LEAST_INTERVAL, sse::frame(None, "hello", &0))
}

/// What the reader says without another picture; `None`: it waits for one.
async fn next(reader: &mut Reader) -> Option<Told> {
    // The clock stands still but for those who wait, and it goes on for whoever waits for the shorter time.
    tokio::time::timeout(MOST_INTERVAL, reader.next()).await.ok()
}

/// Reads on until nothing comes without another picture.
async fn catch_up(reader: &mut Reader, model: &mut Model) {
    while let Some(told) = next(reader).await {
        model.apply(&told);
    }
}

fn tenants() -> [Option<Tenant>; 2] {
    [None, Some(Tenant::new("acme", TenantLimits::default()).unwrap())]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let session = || (0..2u8, 0..2u8, 0..4u8);
    let step = prop_oneof![
        4 => (session(), any::<bool>()).prop_map(|((pool, tenant, id), goes_on)| Step::Use(pool, tenant, id, goes_on)),
        3 => session().prop_map(|(pool, tenant, id)| Step::End(pool, tenant, id)),
        3 => (0..5u64).prop_map(Step::Work),
        2 => (0..5u64).prop_map(Step::Exit),
        1 => any::<bool>().prop_map(Step::Fill),
        4 => Just(Step::Look),
        4 => (0..6u8).prop_map(Step::Read),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_reader_has_what_there_is_whatever_it_missed(steps in steps()) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (board, tenants, mut world) = (Board::default(), tenants(), World::default());
            let (mut reader, mut model) = (reader(&board), Model::default());
            for step in steps {
                world.happen(step);
                match step {
                    Step::Look => {
                        world.time += 1;
                        look(&board, world.content(&tenants));
                    }
                    Step::Read(most) => {
                        for _ in 0..most {
                            let Some(told) = next(&mut reader).await else { break };
                            model.apply(&told);
                        }
                    }
                    _ => {}
                }
            }
            // One round may be half-way through, and the next one tells the rest.
            catch_up(&mut reader, &mut model).await;
            let picture = look(&board, world.content(&tenants));
            catch_up(&mut reader, &mut model).await;
            model.check(&picture);
            assert_eq!(model.ready, 1);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_twice() {
    let (board, tenants, mut world) = (Board::default(), tenants(), World::default());
    (0..4).for_each(|id| world.happen(Step::Use(0, 0, id, id == 3)));
    world.happen(Step::Work(1));
    look(&board, world.content(&tenants));
    let (mut reader, mut model) = (reader(&board), Model::default());
    catch_up(&mut reader, &mut model).await;
    world.time += 1;
    look(&board, world.content(&tenants));
    let told = next(&mut reader).await.unwrap();
    let Told::Frame(frame) = told else { panic!("{told:?}") };
    assert_eq!(parse(&frame), ("stats".to_owned(), 1.into()), "a session that is in use is used now, which is no news");
    world.happen(Step::Use(0, 0, 2, false));
    look(&board, world.content(&tenants));
    let told = next(&mut reader).await.unwrap();
    let Told::Frame(frame) = told else { panic!("{told:?}") };
    let (name, data) = parse(&frame);
    assert_eq!((name.as_str(), data["items"].as_array().unwrap().len()), ("sessions", 1));
    assert_eq!(data["items"][0]["requests"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_does_not_read_costs_nothing_and_is_let_go_when_too_many_are_gone() {
    let (board, tenants, mut world) = (Board::default(), tenants(), World::default());
    look(&board, world.content(&tenants));
    let (mut slow, mut model) = (reader(&board), Model::default());
    catch_up(&mut slow, &mut model).await;
    for _ in 0..30 {
        world.happen(Step::Fill(true));
        look(&board, world.content(&tenants));
        world.happen(Step::Fill(false));
        look(&board, world.content(&tenants));
    }
    catch_up(&mut slow, &mut model).await;
    model.check(&board.latest().unwrap());
    for _ in 0..60 {
        world.happen(Step::Fill(true));
        look(&board, world.content(&tenants));
        world.happen(Step::Fill(false));
        look(&board, world.content(&tenants));
    }
    let told = next(&mut slow).await.unwrap();
    let Told::Last(frame) = told else { panic!("{told:?}") };
    assert!(parse(&frame).1["reason"].as_str().unwrap().contains("not read fast enough"));
}

#[tokio::test(start_paused = true)]
async fn frames_are_small_and_who_comes_gets_no_old_picture() {
    let (board, tenants, mut world) = (Board::default(), tenants(), World::default());
    world.happen(Step::Fill(true));
    look(&board, world.content(&tenants));
    tokio::time::advance(LEAST_INTERVAL * 2).await;
    let mut late = reader(&board);
    assert!(matches!(next(&mut late).await, Some(Told::Frame(_))), "a greeting");
    assert!(next(&mut late).await.is_none(), "that picture is old");
    assert_eq!(board.demand(), Some(Demand::Soon));
    let picture = look(&board, world.content(&tenants));
    assert_eq!(board.demand(), Some(Demand::Every(LEAST_INTERVAL)));
    let mut model = Model::default();
    while let Some(told) = next(&mut late).await {
        if let Told::Frame(frame) = &told {
            assert!(frame.len() < 80 * 1024, "{}", frame.len());
        }
        model.apply(&told);
    }
    model.check(&picture);
    assert_eq!((model.ready, model.stats), (1, 1));
}

#[tokio::test]
async fn places_are_bounded_and_the_last_reader_ends_the_pictures() {
    let board = Board::default();
    let (first, begins) = board.join(DEFAULT_INTERVAL).unwrap();
    assert!(begins);
    let mut seats = vec![first];
    while let Ok((seat, begins)) = board.join(LEAST_INTERVAL) {
        assert!(!begins, "one takes pictures for all");
        seats.push(seat);
    }
    assert_eq!(seats.len(), 256);
    look(&board, World::default().content(&tenants()));
    assert_eq!(board.demand(), Some(Demand::Every(LEAST_INTERVAL)));
    seats.truncate(1);
    assert_eq!(board.demand(), Some(Demand::Every(DEFAULT_INTERVAL)));
    seats.clear();
    assert_eq!(board.demand(), None);
    assert!(board.latest().is_none());
    assert!(board.join(DEFAULT_INTERVAL).unwrap().1, "pictures are taken again");
}

#[tokio::test(start_paused = true)]
async fn readers_hear_that_there_are_no_pictures_any_more() {
    let board = Board::default();
    let mut fresh = reader(&board);
    next(&mut fresh).await;
    look(&board, World::default().content(&tenants()));
    let (mut old, mut model) = (reader(&board), Model::default());
    catch_up(&mut old, &mut model).await;
    board.give_up();
    assert!(matches!(next(&mut old).await, Some(Told::Last(_))));
}

#[test]
fn an_interval_is_a_number_within_bounds() {
    assert_eq!(interval(None).unwrap(), DEFAULT_INTERVAL);
    assert_eq!(interval(Some("250")).unwrap(), LEAST_INTERVAL);
    for wrong in ["", "x", "-1", "249", "60001", "1.5", "99999999999999999999"] {
        assert_eq!(interval(Some(wrong)).unwrap_err().to_json()["status"], 400, "{wrong}");
    }
}

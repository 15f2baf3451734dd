//! `herd top`.

mod columns;
mod details;
mod draw;
mod keys;
mod picture;
mod rows;
mod view;

#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    future::ready,
    io,
    pin::{Pin, pin},
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use anstream::AutoStream;
use anyhow::{anyhow, bail};
use clap::Args;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hyper::{Method, StatusCode};
use ratatui::{
    Terminal, TerminalOptions, Viewport, backend::CrosstermBackend, crossterm::style::force_color_output, layout::Rect,
};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::mpsc::{Sender, channel},
    time::{MissedTickBehavior, interval, sleep},
};

use self::{
    draw::Theme,
    keys::keys,
    picture::{Picture, Told},
    rows::SessionKey,
    view::{Link, View, Wish},
};
use super::{
    Answer, Daemon, Frame, Stream, block_on,
    terminal::{self, Endings, RawTerminal},
};
use crate::{
    admin::{escape, model::Ended},
    cli::DaemonChoice,
    console::printable,
};

/// After how long a daemon that is gone is looked for again.
const RETRY: Duration = Duration::from_secs(1);
/// For how long a daemon may let wait before there is a screen that says so.
const BLANK: Duration = Duration::from_millis(300);
/// How often the screen is drawn when nothing happens: ages go on.
const TICK: Duration = Duration::from_secs(1);
/// What leads to the terminal's other screen, without a cursor, and back (xterm's control sequences).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[m\x1b[?25h\x1b[?1049l";
/// How often the daemon may be asked to tell of changes, in milliseconds.
const INTERVALS: std::ops::RangeInclusive<u128> = 250..=60_000;

/// Arguments of `herd top`.
#[derive(Args, Debug)]
#[command(
    after_help = "Keys: q quit, ? help, arrows select and sort, Enter look closer, x end a session, / find, Tab \
                        workers, p pause.\nWithout a terminal, `herd ps` and `herd stats` print what there is, and \
                        `herd events -f` follows it."
)]
pub(crate) struct TopArgs {
    /// How often to look, from 250ms to 1m
    #[arg(long, short, value_name = "DURATION", default_value = "1s", value_parser = interval_of)]
    interval: Duration,
    #[command(flatten)]
    daemon: DaemonChoice,
}

fn interval_of(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).ok().filter(|duration| INTERVALS.contains(&duration.as_millis()));
    duration.ok_or_else(|| "write a duration from 250ms to 1m, such as 2s".to_owned())
}

/// What opens the daemon's stream.
type Opening<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Stream<'a>>> + 'a>>;

/// What comes from the daemon.
enum Update {
    Frame(Frame),
    Lost(anyhow::Error),
}

/// Shows sessions and workers of a running daemon until somebody quits.
///
/// # Errors
/// If there is no daemon, or no terminal.
pub(crate) fn run(args: TopArgs) -> anyhow::Result<ExitCode> {
    if !RawTerminal::is_there() {
        bail!("herd top needs a terminal for its input and output; `herd ps` and `herd stats` print to anything");
    }
    if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        bail!("herd top cannot draw on this terminal, for TERM is `dumb`; use `herd ps` and `herd stats`");
    }
    let daemon = Daemon::find(args.daemon.socket)?;
    block_on(watch(&daemon, args.interval))
}

async fn watch(daemon: &Daemon, every: Duration) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/live?interval_ms={}", every.as_millis());
    let mut opening: Opening<'_> = Box::pin(daemon.stream(&path, None));
    // Where there is no daemon, that is said without any screen.
    select! {
        first = &mut opening => opening = Box::pin(ready(Ok(first?))),
        () = sleep(BLANK) => {}
    }
    let mut endings = Endings::catch()?;
    let [mut stops, mut goes_on, mut resizes] =
        [SignalKind::from_raw(20), SignalKind::from_raw(18), SignalKind::window_change()].map(signal);
    let (stops, goes_on, resizes) = (stops.as_mut(), goes_on.as_mut(), resizes.as_mut());
    let (Ok(stops), Ok(goes_on), Ok(resizes)) = (stops, goes_on, resizes) else {
        bail!("the signals of the terminal cannot be caught");
    };
    let raw = RawTerminal::enter(ENTER, LEAVE)?;
    let mut screen = Screen::new()?;
    let mut input = terminal::input();
    let (sender, mut updates) = channel(1);
    let mut following = pin!(follow(daemon, &path, opening, sender));
    let mut ends = FuturesUnordered::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut view = View::new();
    let mut coming = Picture::default();
    loop {
        select! {
            biased;
            ending = endings.next() => return Ok(by_signal(ending)),
            _ = goes_on.recv() => {
                raw.resume()?;
                screen.forget()?;
            }
            _ = stops.recv() => {
                if let Some(ending) = raw.suspend(false, &mut endings).await? {
                    return Ok(by_signal(ending));
                }
                screen.forget()?;
            }
            _ = resizes.recv() => screen.forget()?,
            piece = input.recv() => {
                // The terminal is gone.
                let Some(Ok(piece)) = piece else { return Ok(by_signal(SignalKind::hangup().as_raw_value())) };
                for key in keys(&piece) {
                    match view.press(key) {
                        None => {}
                        Some(Wish::Quit) => return Ok(ExitCode::SUCCESS),
                        Some(Wish::Redraw) => screen.forget()?,
                        Some(Wish::Suspend) => {
                            if let Some(ending) = raw.suspend(true, &mut endings).await? {
                                return Ok(by_signal(ending));
                            }
                            screen.forget()?;
                        }
                        Some(Wish::End { session, worker, force }) => {
                            view.notice = Some(format!("ending {} …", printable(&session.id)));
                            ends.push(end(daemon, session, worker, force));
                        }
                    }
                }
            }
            Some(notice) = ends.next() => view.notice = Some(notice),
            update = updates.recv() => match update {
                Some(Update::Frame(frame)) => {
                    if frame.name == "hello" {
                        // What is not told again is gone. Until all is told, the last picture stays.
                        coming = Picture::default();
                    }
                    match coming.take(&frame, Instant::now())? {
                        Told::Part => continue,
                        Told::Moment => {
                            view.link = Link::Live;
                            view.show(&coming);
                        }
                        Told::End(reason) => view.lose(format!("it ended the stream ({})", printable(&reason)), SystemTime::now()),
                    }
                }
                Some(Update::Lost(error)) => view.lose(format!("{error:#}"), SystemTime::now()),
                None => continue,
            },
            never = &mut following => match never {},
            _ = tick.tick() => {}
        }
        screen.draw(&mut view)?;
    }
}

/// Reads what the daemon tells, and looks for it again and again when it is gone.
async fn follow(daemon: &Daemon, path: &str, first: Opening<'_>, updates: Sender<Update>) -> Infallible {
    let mut opened = first.await;
    loop {
        let lost = match opened {
            Ok(mut stream) => loop {
                match stream.next().await {
                    // While nobody takes it, nothing more is read: then the daemon tells less often.
                    Ok(Some(frame)) => _ = updates.send(Update::Frame(frame)).await,
                    Ok(None) => break anyhow!("it ended the stream"),
                    Err(error) => break error,
                }
            },
            Err(error) => error,
        };
        _ = updates.send(Update::Lost(lost)).await;
        sleep(RETRY).await;
        opened = daemon.stream(path, None).await;
    }
}

/// Ends a session; what became of it.
async fn end(daemon: &Daemon, session: SessionKey, worker: Option<String>, force: bool) -> String {
    let SessionKey { pool, tenant, id } = session;
    let tenant = escape(tenant.as_deref().unwrap_or_default());
    let mut path = format!("/v1/sessions/{}?force={force}&pool={}&tenant={tenant}", escape(&id), escape(&pool));
    if let Some(worker) = worker {
        path += &format!("&worker={}", escape(&worker));
    }
    let id = printable(&id);
    match daemon.exchange(Method::DELETE, &path).await {
        Ok(Answer { status: StatusCode::OK, body }) => match serde_json::from_slice::<Ended>(&body) {
            Ok(ended) => format!("{id} ended ({})", printable(&ended.reason)),
            Err(_) => format!("{id} ended"),
        },
        Ok(answer) if answer.kind() == "session-restarted" => {
            format!("{id} had ended already, and was started anew: nothing was ended")
        }
        Ok(answer) if answer.kind() == "no-such-session" => format!("{id} had ended already"),
        Ok(answer) => format!("{id} was not ended: {}", printable(&answer.detail())),
        Err(error) => format!("whether {id} ended is not known: {}", printable(&format!("{error:#}"))),
    }
}

/// As shells have it: 128 and the signal's number.
fn by_signal(number: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX))
}

/// What is drawn on.
struct Screen {
    terminal: Terminal<CrosstermBackend<io::Stdout>>,
    theme: Theme,
}

impl Screen {
    fn new() -> io::Result<Self> {
        // The size is looked at when the terminal says that it changed, and not for each picture.
        let options = TerminalOptions { viewport: Viewport::Fixed(area()) };
        let terminal = Terminal::with_options(CrosstermBackend::new(io::stdout()), options)?;
        let colours = AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
        // It has a mind of its own, from NO_COLOR.
        force_color_output(colours);
        Ok(Self { terminal, theme: Theme { colours } })
    }

    fn draw(&mut self, view: &mut View) -> io::Result<()> {
        self.terminal.draw(|frame| draw::draw(frame, view, self.theme, SystemTime::now()))?;
        Ok(())
    }

    /// Draws everything anew, and as large as the terminal is now: nobody knows what is there.
    fn forget(&mut self) -> io::Result<()> {
        self.terminal.resize(area())
    }
}

fn area() -> Rect {
    let (width, height) = terminal::size();
    Rect::new(0, 0, width, height)
}

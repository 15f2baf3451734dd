//! System calls by number, for which these tests would need `unsafe`: Perl makes them, which every Debian has.

use std::{
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use rustix::io::Errno;

/// One system call.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// `SYS_…` of libc.
    pub(crate) number: i64,
    pub(crate) args: &'a [Arg<'a>],
}

/// One argument of a system call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg<'a> {
    Int(i64),
    /// What the call before this one has returned.
    Last,
    Text(&'a str),
    /// Memory that holds these bytes.
    Bytes(&'a [u8]),
    /// So many bytes of memory that the call may write to.
    Buffer(usize),
    /// An iovec(3type) with one buffer of so many bytes.
    Vector(usize),
}

/// What the last call has returned.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) value: i64,
    /// What it has written, as far as it is text. It shows in messages.
    #[expect(dead_code, reason = "it is read by Debug")]
    written: String,
}

/// Makes the calls one after the other in one process, up to the first that fails.
pub(crate) fn calls(calls: &[Call<'_>]) -> Result<Returned, Errno> {
    let mut perl = Command::new("perl");
    perl.args(["-e", INTERPRETER]).stdin(Stdio::null());
    for call in calls {
        perl.arg(call.number.to_string());
        perl.args(call.args.iter().map(Arg::encode)).arg("--");
    }
    let output = perl.stderr(Stdio::inherit()).output().expect("perl is installed, and visible in the sandbox");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "perl made {calls:?} and ended: {:?} {text}", output.status.signal());
    match text.splitn(3, ' ').collect::<Vec<_>>()[..] {
        ["errno", number] => Err(Errno::from_raw_os_error(number.parse().expect("a number"))),
        ["returned", value, written] => {
            Ok(Returned { value: value.parse().expect("a number"), written: written.to_owned() })
        }
        _ => panic!("perl made {calls:?} and said {text:?}"),
    }
}

/// Makes one call.
pub(crate) fn call(number: i64, args: &[Arg<'_>]) -> Result<Returned, Errno> {
    calls(&[Call { number, args }])
}

impl Arg<'_> {
    fn encode(&self) -> String {
        match self {
            Self::Int(value) => format!("i:{value}"),
            Self::Last => "l:".to_owned(),
            Self::Text(text) => format!("s:{text}"),
            Self::Bytes(bytes) => format!("x:{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
            Self::Buffer(length) => format!("b:{length}"),
            Self::Vector(length) => format!("v:{length}"),
        }
    }
}

/// Perl passes numbers as they are and texts as pointers to their bytes.
const INTERPRETER: &str = r#"
    my ($last, @buffers) = (0);
    while (@ARGV) {
        my $number = shift(@ARGV) + 0;
        my @args;
        while ((my $word = shift @ARGV) ne '--') {
            my ($kind, $value) = (substr($word, 0, 1), substr($word, 2));
            if ($kind eq 'i') { push @args, $value + 0 }
            elsif ($kind eq 'l') { push @args, $last }
            elsif ($kind eq 's') { push @args, $value }
            elsif ($kind eq 'x') { push @args, pack('H*', $value) }
            elsif ($kind eq 'b') { push @args, "\0" x $value }
            elsif ($kind eq 'v') {
                push @buffers, "\0" x $value;
                push @args, pack('PJ', $buffers[-1], $value);
            }
        }
        $! = 0;
        $last = syscall($number, @args);
        if ($last == -1 && $!) { print 'errno ', $! + 0; exit }
        @written = (@buffers, grep { !/^-?\d+$/ } @args);
    }
    my $written = join ' ', @written;
    $written =~ s/[^ -~]+/ /g;
    print "returned $last $written";
"#;

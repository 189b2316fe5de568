//! Why a packet met its fate. Every path through the programs ends in exactly one of these.

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Left as it is; the next program or the stack decides.
    Pass,
    /// Translated and sent on.
    Forward,
    /// Answered with a TCP reset; a datagram is dropped.
    Reset,
    /// Answered in the VIP's name.
    Answer,
    /// Dropped.
    Drop,
}

impl Fate {
    /// The word in output, metrics and docs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Forward => "forward",
            Self::Reset => "reset",
            Self::Answer => "answer",
            Self::Drop => "drop",
        }
    }
}

macro_rules! reasons {
    ($($variant:ident = $name:literal, $fate:ident, $text:literal;)*) => {
        /// A reason; its number is its index in `REASONS`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Reason { $(#[doc = $text] $variant,)* }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];
            /// The name in output, metrics and docs.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }
            /// What becomes of the packet.
            #[inline(always)]
            pub const fn fate(self) -> Fate {
                match self { $(Reason::$variant => Fate::$fate,)* }
            }
            /// The reason with this number.
            pub fn from_number(number: u32) -> Option<Reason> {
                Reason::ALL.get(number as usize).copied()
            }
            /// One sentence for people.
            pub const fn text(self) -> &'static str {
                match self { $(Reason::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    NonVip = "non_vip", Pass, "No VIP or real uses this port.";
    NotTcp = "not_tcp", Pass, "Not IPv4 or IPv6, or neither TCP nor UDP, nor ICMP about a known flow.";
    OtherHost = "other_host", Pass, "The frame is addressed to another machine.";
    Malformed = "malformed", Pass, "Headers are cut short or contradict each other; the stack decides.";
    FragmentTail = "fragment_tail", Pass, "A fragment without ports, to an address that is no VIP's, whose first one was not sent on.";
    UnknownDestination = "unknown_destination", Pass, "A VIP uses this port, but not at this address.";
    UnknownReply = "unknown_reply", Pass, "A real uses this port, but the packet is no reply of a known flow, or of one of UDP that has been silent for 30 seconds.";
    StackReply = "stack_reply", Pass, "A reply that the stack routes: it is translated where it leaves the node.";
    ToProxy = "to_proxy", Pass, "A packet of a connection that begins, handed to the proxy that carries out the HTTP rules of its route.";
    Proxied = "proxied", Pass, "A packet of a connection that the proxy has.";
    Established = "established", Forward, "A packet of a known flow, client to real.";
    Reply = "reply", Forward, "A packet of a known flow, real to client.";
    NewFlow = "new_flow", Forward, "A SYN, or the first datagram of a flow, for which a real was picked.";
    HalfOpen = "half_open", Forward, "A packet of a flow whose handshake is not complete, or a datagram before the client has gone on after an answer.";
    Unanswered = "unanswered", Forward, "A SYN again, a second or more after the flow began, and no answer of its real has passed here.";
    FlowAdopted = "flow_adopted", Forward, "A packet without an entry; the hash found its real.";
    TupleClash = "tuple_clash", Forward, "A SYN or first datagram whose real already talks to this client address and port through another VIP: another real, or another source port, was taken.";
    LeftToTc = "left_to_tc", Pass, "XDP does not finish such a packet; TC and the stack get it as it came.";
    FragmentFollowed = "fragment_followed", Forward, "A fragment without ports; it went where the packet's first one had gone.";
    IcmpError = "icmp_error", Forward, "An ICMP error about a packet of a known flow, translated as is what it quotes; unchanged where its real answers by itself.";
    Echo = "echo", Answer, "An ICMP echo request to a VIP's address.";
    TooBig = "too_big", Answer, "A packet of a flow with snat, or for a real that answers by itself, beyond the MTU of the way there; its sender is told which fits.";
    FlowLost = "flow_lost", Reset, "A packet without an entry, on a route that cannot tell its real.";
    RealGone = "real_gone", Reset, "The flow's real has left the inventory.";
    Blackhole = "blackhole", Reset, "The share of a backend without usable reals.";
    Denied = "denied", Reset, "No policy gives this source a route to the VIP (no_route: deny).";
    ProxyDown = "proxy_down", Reset, "A connection for the proxy while none listens (l7_fallback: reset).";
    StrayReset = "stray_reset", Drop, "A RST to a VIP that belongs to no known flow.";
    Fragment = "fragment", Drop, "A fragment to a VIP's address whose first one was not sent on, or one that could not be remembered.";
    MartianSource = "martian_source", Drop, "The source address is one that no host has, or the VIP's own.";
    SpoofedSource = "spoofed_source", Drop, "The source address belongs to a workload behind another interface, or the connection is one that the node itself opened.";
    EmptySlot = "empty_slot", Drop, "The table's slot names no real.";
    NewFlowLimit = "new_flow_limit", Drop, "A flow that would be new, where this CPU has let in as many for the VIP, or in all, as limits.new_flows allows.";
    FlowTableFull = "flow_table_full", Drop, "The flow could not be recorded.";
    TuplesExhausted = "tuples_exhausted", Drop, "No real and no source port was free for this client tuple.";
    SnatFailed = "snat_failed", Drop, "A packet of a flow with snat that cannot be sent on: no address of the node on the way to the real, no route, no hop left.";
    RewriteFailed = "rewrite_failed", Drop, "The kernel refused to change the packet, or has no way to a real that answers by itself.";
}

impl Reason {
    /// The bit in [`Trace::reasons`](crate::abi::Trace::reasons).
    #[inline(always)]
    pub const fn bit(self) -> u64 {
        1 << self as u64
    }

    /// The packet is the first that was sent on of a flow without an entry.
    #[inline(always)]
    pub const fn begins_flow(self) -> bool {
        matches!(self, Self::NewFlow | Self::TupleClash | Self::FlowAdopted)
    }

    /// The packet was dropped or answered with a reset.
    pub const fn refuses(self) -> bool {
        matches!(self.fate(), Fate::Drop | Fate::Reset)
    }

    /// What a person who sees its counter grow can do.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::NonVip
            | Self::StackReply
            | Self::Established
            | Self::Reply
            | Self::NewFlow
            | Self::HalfOpen
            | Self::FragmentFollowed
            | Self::IcmpError
            | Self::Echo
            | Self::ToProxy
            | Self::Proxied => "Nothing: this is how it should be.",
            Self::NotTcp => "Nothing: it is none of ours.",
            Self::OtherHost => {
                "Nothing on an interface that listens to all frames. On a port of a bridge: attach to \
                 the bridge instead."
            }
            Self::MartianSource => {
                "Find who sends it, by the interface in `balancer trace`: no stack sends such."
            }
            Self::Malformed => {
                "Nothing while it is rare. Else look at the sender's packets: no stack sends such."
            }
            Self::FragmentTail => "Nothing: it is not for a VIP.",
            Self::UnknownDestination => {
                "Nothing for hosts of your own with such a port. Where clients cannot reach a \
                 service: `balancer show vips` says what to dial."
            }
            Self::UnknownReply => {
                "Nothing for connections straight to the real. Where clients of a VIP time out, \
                 their entries were evicted: raise limits.flows."
            }
            Self::Unanswered => {
                "Nothing while it is rare. Else the real is down or does not listen, or its answers do \
                 not come by this node: look at its route to the client, or give the interface that \
                 clients come by `snat` (docs/operations.md)."
            }
            Self::FlowAdopted => {
                "Nothing after a restart of the node or a move of traffic to it. If it goes on, \
                 entries are evicted: raise limits.flows."
            }
            Self::TupleClash => {
                "Nothing: both connections live. Fewer clients that use one source port for \
                 several VIPs would avoid it."
            }
            Self::LeftToTc => {
                "Nothing while it is a small part: TC carries them. Else give the interfaces that \
                 they leave by the hook xdp too, and look at the path's MTU (`docs/datapath.md`)."
            }
            Self::TooBig => {
                "Nothing while it is rare: each sender learns the path's MTU so. Else give the way to \
                 the reals a larger MTU, or clients a smaller MSS."
            }
            Self::FlowLost => {
                "Nothing after a restart of the node. If it goes on, entries are evicted: raise \
                 limits.flows, or use maglev or ringHash, whose connections are found again."
            }
            Self::RealGone => {
                "Nothing where the real was meant to go. To let connections end by themselves, \
                 set its weight to 0 first, or drain.on_gone to keep."
            }
            Self::Blackhole => {
                "Give the backend a ready real, or weight 0: `balancer show backends` names it \
                 (state empty or invalid)."
            }
            Self::Denied => {
                "Write a route for this source (`balancer explain --from SOURCE --to SERVICE` \
                 says which are missing), or set no_route to direct."
            }
            Self::ProxyDown => {
                "Start the agent, whose proxy takes these connections, or set l7_fallback to l4: the \
                 split of the route without its HTTP rules."
            }
            Self::StrayReset => "Nothing: the connection that it would end is not there.",
            Self::Fragment => {
                "Nothing while it is rare: fragments overtook their first one, and are sent again. \
                 Else let clients send packets that fit: MTU of their interfaces, path MTU discovery."
            }
            Self::SpoofedSource => {
                "Find who sends it: the address is a workload's, the interface is not. After a \
                 workload was moved, `balancer load` or the agent learns its new route."
            }
            Self::EmptySlot => {
                "Load again; if it stays, this is a fault of balancer: report it with \
                 `balancer maps dump ROUTES`."
            }
            Self::NewFlowLimit => {
                "Nothing during a flood: known flows go on. Else raise limits.new_flows, and with it \
                 limits.half_open."
            }
            Self::FlowTableFull => "Raise limits.half_open, and limits.flows if it stays.",
            Self::TuplesExhausted => {
                "Spread the clients' source ports, or give the service more reals."
            }
            Self::SnatFailed => {
                "Look at the route to the reals, and that the interface it leads by is attached to and \
                 has an address of their family."
            }
            Self::RewriteFailed => {
                "With direct server return, look at the routes to the reals. Else report it with the \
                 kernel's release (`balancer status`): its helpers refuse packets that they should \
                 take."
            }
        }
    }
}

const _: () = assert!(Reason::ALL.len() <= 64, "each reason has a bit of `Trace::reasons`");

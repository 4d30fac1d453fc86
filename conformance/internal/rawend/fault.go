package rawend

// A Fault is one thing that an end does wrong.
type Fault int

// The faults. None is the zero value.
const (
	None                 Fault = iota
	Expires                    // the allowance for elements stops at 1000: rule 72
	BeatsSlowly                // twice the silence that was asked for: rule 73
	BatchesTooMuch             // batches of 41 elements: rule 74
	AsksTooMuch                // more than max_credit: rule 75
	WantsReports               // no more than 1,000 elements that are not reported as consumed: rule 76
	AnnouncesNothing           // no next_bytes: rule 77
	IgnoresAnnouncements       // next_bytes gives no time: rule 77
	Floods                     // control without a bound: rule 78
	DropsBuffered              // an error takes what is buffered: rule 79
	LosesTheLast               // the last element is accepted and not written, where the handler returns then: rule 80
	IgnoresTrailers            // OK is the end, whatever the trailers say: rule 81
	ReportsLate                // consumed is reported only with demand: rule 82
	TrustsOK                   // OK means consumed: rule 83
	HidesBound                 // no max_credit: rule 84
	WaitsForEver               // heartbeats are asked for and not missed: rule 85
)

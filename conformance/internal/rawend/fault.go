package rawend

// A Fault is a mistake that an end makes.
type Fault int

// The faults, each with the rule that finds it. None is the zero value.
const (
	None                 Fault = iota
	Expires                    // does not let the flood allowance for elements grow beyond 1000 (rule 72)
	BeatsSlowly                // sends heartbeats at twice the requested interval (rule 73)
	BatchesTooMuch             // sends batches of 41 elements, whatever their size (rule 74)
	AsksTooMuch                // asks for more than max_credit (rule 75)
	WantsReports               // stops sending at 1,000 elements that are not reported as consumed (rule 76)
	AnnouncesNothing           // sends large elements without next_bytes (rule 77)
	IgnoresAnnouncements       // gives an announced element no extra time (rule 77)
	Floods                     // sends control messages without a bound (rule 78)
	DropsBuffered              // drops buffered elements after an error (rule 79)
	LosesTheLast               // accepts the last element before the handler returns, and does not send it (rule 80)
	IgnoresTrailers            // takes OK for the end and ignores the trailers (rule 81)
	ReportsLate                // reports consumed elements only together with demand (rule 82)
	TrustsOK                   // takes OK for a report that everything is consumed (rule 83)
	HidesBound                 // does not announce max_credit (rule 84)
	WaitsForEver               // asks for heartbeats and never times out without them (rule 85)
)

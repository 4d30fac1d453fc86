package admit

// totals are counted since the gate was made. The gate's lock guards them.
type totals struct {
	tally
	waited   uint64
	waitTime span
	left     uint64
	refused  [MaxClasses][NumReasons]uint64
}

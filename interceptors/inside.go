package interceptors

import (
	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/inside"
)

// gateFuncs are the functions of gates that package admit does not offer to programs.
//
//nolint:forcetypeassert // package admit sets it, and is initialized before this one
var gateFuncs = inside.Admit.(inside.Gates[*admit.Gate, admit.Call, admit.Class, admit.Reason, admit.Option])
